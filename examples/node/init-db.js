// Litepilot runs it where a node becomes the primary: app.on_promote.

import { withDatabase } from "./database.js";

withDatabase((database) => {
  database.exec("PRAGMA journal_mode = WAL");
  database.exec(
    "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0)",
  );
});
