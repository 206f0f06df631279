// A list of notes as one would write it for Fly.io, with litefs-js as its documentation says. It has
// never heard of Litepilot: LITEFS_DIR and DATABASE_FILENAME are litefs-js' own variables.

import path from "node:path";
import express from "express";
import Database from "libsql";
import { getInstanceInfo } from "litefs-js";
import {
  ensurePrimary,
  getEnsurePrimaryMiddleware,
  getTransactionalConsistencyMiddleware,
  setTxCookie,
} from "litefs-js/express";

function withDatabase(work) {
  const database = new Database(path.join(process.env.LITEFS_DIR, process.env.DATABASE_FILENAME));
  try {
    // libsql does not wait for a lock unless told to.
    database.exec("PRAGMA busy_timeout = 5000");
    return work(database);
  } finally {
    database.close();
  }
}

const schema =
  "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0)";

const app = express();
app.use(express.json());
app.use(getTransactionalConsistencyMiddleware());
app.use(getEnsurePrimaryMiddleware());

app.get("/health", (_request, response) => response.send("OK"));

app.get("/instance", async (_request, response) => response.json(await getInstanceInfo()));

app.get("/notes", (_request, response) => {
  response.json(withDatabase((database) => database.prepare("SELECT * FROM notes ORDER BY id").all()));
});

app.post("/notes", async (request, response) => {
  withDatabase((database) => {
    database.exec(schema);
    database.prepare("INSERT INTO notes (text) VALUES (?)").run(request.body.text);
  });
  await setTxCookie(response);
  response.status(201).end();
});

// A GET that writes: only the application knows, and asks for the primary by `fly-replay`.
app.get("/notes/:id", async (request, response) => {
  if (await ensurePrimary(response)) return;
  const sql = "UPDATE notes SET views = views + 1 WHERE id = ? RETURNING *";
  const note = withDatabase((database) => database.prepare(sql).get(request.params.id));
  await setTxCookie(response);
  response.json(note);
});

app.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
