//! What both engines that keep a copy of the database share.
//!
//! | module | subject |
//! | --- | --- |
//! | [`state_file`] | what an engine remembers across restarts, in one sealed file of `data_dir` |
//! | [`history`] | whether a copy has something that the cluster's history lacks. Pure |
//! | [`diverged`] | such copies, kept before they are replaced |

pub(crate) mod diverged;
pub(crate) mod history;
pub(crate) mod state_file;
