package notes;

import java.util.List;
import java.util.Map;
import org.springframework.http.HttpStatus;
import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.transaction.annotation.Transactional;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

@RestController
class NotesController {
    private final JdbcClient database;

    NotesController(JdbcClient database) {
        this.database = database;
    }

    record Note(long id, String text, long views) {}

    record NewNote(String text) {}

    @GetMapping("/notes")
    List<Note> list() {
        return database.sql("SELECT * FROM notes ORDER BY id").query(Note.class).list();
    }

    @PostMapping("/notes")
    @ResponseStatus(HttpStatus.CREATED)
    @Transactional
    public Map<String, Long> add(@RequestBody NewNote note) {
        var id = database.sql("INSERT INTO notes (text) VALUES (?) RETURNING id").param(note.text());
        return Map.of("id", id.query(Long.class).single());
    }

    /** A GET that writes: it counts views. */
    @GetMapping("/notes/{id}")
    Note view(@PathVariable long id) {
        var viewed = database.sql("UPDATE notes SET views = views + 1 WHERE id = ? RETURNING *").param(id);
        return viewed.query(Note.class).single();
    }

    @GetMapping("/healthz")
    Map<String, Long> health() {
        return Map.of("tables", database.sql("SELECT count(*) FROM sqlite_master").query(Long.class).single());
    }
}
