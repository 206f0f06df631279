package notes;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.jdbc.core.simple.JdbcClient;

/** A list of notes in Spring Boot and SQLite. */
@SpringBootApplication
public class Application {
    private static final String SCHEMA = """
        CREATE TABLE IF NOT EXISTS notes (
            id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0
        )""";

    public static void main(String[] args) {
        if (args.length == 1 && args[0].equals("init-db")) {
            initDb();
        } else {
            SpringApplication.run(Application.class, args);
        }
    }

    /** Litepilot runs it where a node becomes the primary: app.on_promote. Spring is not needed for that. */
    private static void initDb() {
        var url = "jdbc:sqlite:" + System.getenv("DATABASE") + "?busy_timeout=10000";
        var database = JdbcClient.create(new org.springframework.jdbc.datasource.DriverManagerDataSource(url));
        database.sql("PRAGMA journal_mode = WAL").query().singleValue();
        database.sql(SCHEMA).update();
    }
}
