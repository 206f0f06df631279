//! Whom a child runs as: a name or number made into ids, and the switch to them.
//!
//! Names are looked up in `/etc/passwd` and `/etc/group` themselves. The C library's lookup (which
//! also asks LDAP and the like) is out of reach of safe Rust; a number works everywhere.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use rustix::process::{Gid, Uid};

/// The ids of a user, and what belongs into its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    /// Name and home directory, if the user is in `/etc/passwd`.
    pub(crate) account: Option<Account>,
}

/// What `/etc/passwd` says besides ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: String,
}

/// Why there is no such user.
#[derive(Debug)]
pub enum UserError {
    /// Neither a known name nor a number.
    Unknown(String),
    /// The files could not be read.
    Unreadable(&'static str, io::Error),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Unknown(user) => write!(
                f,
                "there is no user {user:?} in /etc/passwd: create it, or give an existing name or \
                 a numeric id"
            ),
            UserError::Unreadable(file, error) => {
                write!(f, "cannot read {file} to look up the user ({error}): make it readable")
            }
        }
    }
}

impl std::error::Error for UserError {}

/// Finds a user by name, else by number. A number that `/etc/passwd` does not have stands for the
/// user and the group of that number, in no other group.
pub(crate) fn resolve(user: &str) -> Result<Identity, UserError> {
    let passwd = read("/etc/passwd")?;
    let group = read("/etc/group")?;
    resolve_in(user, &passwd, &group).ok_or_else(|| UserError::Unknown(user.to_owned()))
}

/// A minimal container has neither file: numbers must work there.
fn read(file: &'static str) -> Result<String, UserError> {
    match std::fs::read(Path::new(file)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(UserError::Unreadable(file, error)),
    }
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Option<Identity> {
    let number = id(user);
    let entries: Vec<_> = passwd.lines().filter_map(passwd_entry).collect();
    let entry = entries
        .iter()
        .find(|(account, ..)| account.name == user)
        .or_else(|| entries.iter().find(|(_, uid, _)| Some(*uid) == number));
    let Some((account, uid, gid)) = entry.cloned() else {
        let number = number?;
        return Some(Identity { uid: number, gid: number, groups: vec![number], account: None });
    };
    let mut groups = vec![gid];
    for other in group.lines().filter_map(|line| group_of_member(line, &account.name)) {
        if !groups.contains(&other) {
            groups.push(other);
        }
    }
    Some(Identity { uid, gid, groups, account: Some(account) })
}

/// `name:password:uid:gid:comment:home:shell`, passwd(5).
fn passwd_entry(line: &str) -> Option<(Account, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1)?.to_owned();
    Some((Account { name, home }, uid, gid))
}

/// `name:password:gid:member,member`, group(5).
fn group_of_member(line: &str, member: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let gid = id(fields.nth(2)?)?;
    fields.next()?.split(',').any(|name| name.trim() == member).then_some(gid)
}

/// The highest number means "leave unchanged" to the system calls: taking it would keep root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// `UID:GID:GROUP,GROUP`, as one process of ours tells it another.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
        write!(f, "{}:{}:{}", self.uid, self.gid, groups.join(","))
    }
}

/// Reads what `Display` writes. The account is not in it.
impl FromStr for Identity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (uid, rest) = text.split_once(':')?;
            let (gid, groups) = rest.split_once(':')?;
            let groups = groups.split(',').filter(|group| !group.is_empty()).map(id);
            let (uid, gid, groups) = (id(uid)?, id(gid)?, groups.collect::<Option<_>>()?);
            Some(Identity { uid, gid, groups, account: None })
        };
        parse().ok_or("not of the form UID:GID:GROUP,GROUP")
    }
}

impl Identity {
    /// Whether this process is that user already. Groups are then left alone: only root may set them.
    pub(crate) fn is_ours(&self) -> bool {
        let ours = rustix::process::getuid();
        !ours.is_root() && ours.as_raw() == self.uid
    }

    /// Makes the *calling thread* that user, for good; what it spawns inherits that.
    ///
    /// To the kernel, ids and groups belong to a thread; only the C library's wrappers spread a
    /// change over the whole process. The plain system calls therefore give us, in safe Rust, what
    /// the standard library offers only in part (`CommandExt::groups` is unstable, and `uid` alone
    /// drops all supplementary groups). Call it on a thread that ends right afterwards.
    pub(crate) fn assume_on_this_thread(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<_> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        // Groups first: without root the later ones would no longer be allowed.
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        broken:x:y:z\n\
        minus:x:4294967295:4294967295::/:/bin/sh\n\
        www-data:x:33:34:web:/var/www:/usr/sbin/nologin\n\
        1000:x:2000:2000::/home/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:34:\nredis:x:77:other,www-data\n\
        tty:x:5:www-database\nssl:x:78:www-data,other\nagain:x:34:www-data\n";

    fn ids(user: &str) -> Option<(u32, u32, Vec<u32>)> {
        resolve_in(user, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups))
    }

    #[test]
    fn a_name_has_all_its_groups() {
        assert_eq!(ids("www-data"), Some((33, 34, vec![34, 77, 78])));
    }

    #[test]
    fn a_number_is_the_user_of_that_number() {
        assert_eq!(ids("33"), ids("www-data"));
        let account = resolve_in("33", PASSWD, GROUP).unwrap().account.unwrap();
        assert_eq!((account.name.as_str(), account.home.as_str()), ("www-data", "/var/www"));
    }

    #[test]
    fn a_number_without_an_entry_is_never_in_roots_group() {
        assert_eq!(ids("4711"), Some((4711, 4711, vec![4711])));
    }

    #[test]
    fn a_name_of_digits_is_a_name() {
        assert_eq!(ids("1000"), Some((2000, 2000, vec![2000])));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for user in ["", "nosuch", "-1", "4294967295", "minus", "broken", "99999999999", "0x21"] {
            assert_eq!(ids(user), None, "{user:?}");
        }
    }

    #[test]
    fn it_can_be_told_another_process() {
        for groups in [vec![], vec![34], vec![34, 77, 4711]] {
            let told = Identity { uid: 33, gid: 34, groups, account: None };
            assert_eq!(told.to_string().parse(), Ok(told));
        }
        for text in ["", "33", "33:34", "33:34:x", "33::34", "4294967295:1:1", "1:1:1:1", "-1:1:"] {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }
}
