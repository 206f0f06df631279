// A list of notes in Go and SQLite, without cgo. It knows nothing of Litepilot.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "modernc.org/sqlite"
)

type note struct {
	ID    int64  `json:"id"`
	Text  string `json:"text"`
	Views int64  `json:"views"`
}

// Transactions begin IMMEDIATE: one that begins as a reader cannot wait to become a writer. A statement by itself is
// no such transaction: what only reads takes no write lock.
func open() (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+os.Getenv("DATABASE")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
}

// Litepilot runs it where a node becomes the primary: app.on_promote.
func initDB(db *sql.DB) error {
	_, err := db.Exec(`PRAGMA journal_mode = WAL;
		CREATE TABLE IF NOT EXISTS notes (
			id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0
		)`)
	return err
}

type server struct{ db *sql.DB }

func (s server) list(r *http.Request) (int, any, error) {
	rows, err := s.db.QueryContext(r.Context(), "SELECT id, text, views FROM notes ORDER BY id")
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	notes := []note{}
	for rows.Next() {
		var n note
		if err := rows.Scan(&n.ID, &n.Text, &n.Views); err != nil {
			return 0, nil, err
		}
		notes = append(notes, n)
	}
	return http.StatusOK, notes, rows.Err()
}

func (s server) add(r *http.Request) (int, any, error) {
	var n note
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		return http.StatusBadRequest, map[string]string{"error": err.Error()}, nil
	}
	tx, err := s.db.BeginTx(r.Context(), nil)
	if err != nil {
		return 0, nil, err
	}
	defer tx.Rollback()
	result, err := tx.Exec("INSERT INTO notes (text) VALUES (?)", n.Text)
	if err != nil {
		return 0, nil, err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, map[string]int64{"id": id}, tx.Commit()
}

// A GET that writes: it counts views.
func (s server) view(r *http.Request) (int, any, error) {
	var n note
	row := s.db.QueryRowContext(r.Context(),
		"UPDATE notes SET views = views + 1 WHERE id = ? RETURNING id, text, views", r.PathValue("id"))
	err := row.Scan(&n.ID, &n.Text, &n.Views)
	if errors.Is(err, sql.ErrNoRows) {
		return http.StatusNotFound, map[string]string{"error": "no such note"}, nil
	}
	return http.StatusOK, n, err
}

func (s server) health(r *http.Request) (int, any, error) {
	var tables int
	err := s.db.QueryRowContext(r.Context(), "SELECT count(*) FROM sqlite_master").Scan(&tables)
	return http.StatusOK, map[string]int{"tables": tables}, err
}

// On a replica a write that SQLite refuses is an error, too: a 500, and Litepilot sends the read to the primary.
func answer(handle func(*http.Request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, body, err := handle(r)
		if err != nil {
			log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
			status, body = http.StatusInternalServerError, map[string]string{"error": "internal"}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
}

func main() {
	db, err := open()
	if err != nil {
		log.Fatal(err)
	}
	if len(os.Args) == 2 && os.Args[1] == "init-db" {
		if err := initDB(db); err != nil {
			log.Fatal(err)
		}
		return
	}
	s := server{db}
	http.Handle("GET /healthz", answer(s.health))
	http.Handle("GET /notes", answer(s.list))
	http.Handle("POST /notes", answer(s.add))
	http.Handle("GET /notes/{id}", answer(s.view))
	serve(os.Args[1])
}

// serve ends at SIGTERM, after what is under way.
func serve(address string) {
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ending.Done()
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
