require "active_record/connection_adapters/sqlite3_adapter"

# What Rails 8 does by itself: a WAL, and transactions that begin IMMEDIATE, since one that begins as a reader cannot
# wait to become a writer.
module ReplicatedSQLite
  def begin_db_transaction
    log("begin transaction", "TRANSACTION") { @connection.transaction(:immediate) }
  end

  def configure_connection
    super
    execute("PRAGMA journal_mode = WAL")
  rescue ActiveRecord::StatementInvalid
    # A replica cannot set it. Once the primary has, it is one there, too.
  end
end

ActiveRecord::ConnectionAdapters::SQLite3Adapter.prepend(ReplicatedSQLite)
