//! What applications meet on a replica: their writes are refused, and their open transactions hold up what
//! comes from the primary. So the stand-in is known to be a fair one in this, too.

use super::support::{Node, Nodes, application};

/// Tries to write in three ways, and says what SQLite says. The last while another is still in a transaction
/// that was refused.
const WRITER: &str = "
import sqlite3, sys
def tries(statements):
    connection = sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement)
        print('wrote')
    except sqlite3.Error as error:
        print(error, error.sqlite_errorname)
    return connection
write = 'INSERT INTO t VALUES (NULL)'
tries([write]).close()
refused = tries(['BEGIN', 'SELECT count(*) FROM t', write, 'COMMIT'])
tries([write])
";

fn said(node: &Node) -> Vec<String> {
    let done = application().args(["python3", "-c", WRITER]).arg(node.path()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn writes_are_refused_on_a_replica() {
    const DIRECTORY: &str = "attempt to write a readonly database SQLITE_READONLY_DIRECTORY";
    const LOCKED: &str = "database is locked SQLITE_BUSY";
    const WAL: &str = "disk I/O error SQLITE_IOERR_WRITE";
    for (mode, refused) in [("delete", [DIRECTORY, DIRECTORY, LOCKED]), ("wal", [WAL, WAL, WAL])] {
        let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
        nodes.serve(0, &[1]).await;
        nodes.create(0, mode).await;
        nodes.level(0, 1).await;
        assert_eq!(said(&nodes.nodes[1]), refused, "{mode}");
        let on_primary = said(&nodes.nodes[0]);
        assert!(on_primary.iter().all(|line| line == "wrote"), "{mode}: {on_primary:?}");
        nodes.stop().await;
    }
}

#[tokio::test]
async fn an_open_reader_holds_up_what_comes_from_the_primary() {
    for mode in ["delete", "wal"] {
        let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
        nodes.serve(0, &[1]).await;
        nodes.create(0, mode).await;
        nodes.level(0, 1).await;
        let reader = nodes.nodes[1].open().unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        let before = nodes.nodes[1].held().await;
        for x in 0..20 {
            nodes.write(0, x).await;
        }
        assert_eq!(nodes.nodes[1].held().await, before, "{mode}");
        reader.execute_batch("COMMIT").unwrap();
        nodes.level(0, 1).await;
        nodes.stop().await;
    }
}
