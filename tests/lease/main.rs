//! The lease as LiteFS asks for it: recordings of a real LiteFS played back, and strangers at the port.

mod client;
mod recordings;
mod script;
mod strangers;
