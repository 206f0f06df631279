//! The application as our child: spawned, its output in our log, restarted with back-off, stopped.
