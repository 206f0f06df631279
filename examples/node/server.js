// A list of notes in Node and SQLite. It knows nothing of Litepilot.

import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { transaction, withDatabase } from "./database.js";

const LIST = "SELECT * FROM notes ORDER BY id";
const ADD = "INSERT INTO notes (text) VALUES (?)";
// A GET that writes: it counts views.
const VIEW = "UPDATE notes SET views = views + 1 WHERE id = ? RETURNING *";

async function answer(request) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/healthz") {
    return [200, withDatabase((database) => database.prepare("SELECT count(*) AS tables FROM sqlite_master").get())];
  }
  if (pathname === "/notes" && request.method === "POST") {
    const { text } = await json(request);
    const add = (database) => transaction(database, () => database.prepare(ADD).run(text).lastInsertRowid);
    return [201, { id: Number(withDatabase(add)) }];
  }
  if (pathname === "/notes") {
    return [200, withDatabase((database) => database.prepare(LIST).all())];
  }
  const id = /^\/notes\/(\d+)$/.exec(pathname)?.[1];
  // All rows: get() ends the statement, which then commits, and tells nobody if that fails.
  const note = id && withDatabase((database) => database.prepare(VIEW).all(Number(id))[0]);
  return note ? [200, note] : [404, { error: "not found" }];
}

const server = createServer(async (request, response) => {
  let [status, body] = [500, { error: "internal" }];
  try {
    [status, body] = await answer(request);
  } catch (error) {
    // On a replica a write that SQLite refuses comes here, too: Litepilot sends the read to the primary.
    console.error(error);
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body) + "\n");
});

server.listen(Number(process.argv[2] ?? 8000), "127.0.0.1");
// What is under way is answered first.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
