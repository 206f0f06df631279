// better-sqlite3. With Node 22.16 or newer the built-in node:sqlite does it too: its DatabaseSync has what is used
// here.

import Database from "better-sqlite3";

// Runs `work` with a connection of its own. On LiteFS one could be open all the time; with the embedded engine it could
// only read if the node was a replica when it was opened.
export function withDatabase(work) {
  const database = new Database(process.env.DATABASE);
  try {
    database.exec("PRAGMA busy_timeout = 10000");
    return work(database);
  } finally {
    database.close();
  }
}

// A transaction that begins as a reader cannot wait to become a writer.
export function transaction(database, work) {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    // Some errors have rolled it back already.
    if (database.inTransaction) database.exec("ROLLBACK");
    throw error;
  }
}
