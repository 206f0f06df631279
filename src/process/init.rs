//! PID 1: reaps orphans and forwards signals to the real program.
