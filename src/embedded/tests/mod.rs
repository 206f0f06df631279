mod crash;
mod fence;
mod harness;
mod placeholder;
mod replication;
mod roles;
mod single;
