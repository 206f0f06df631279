//! What the pipe says of a node: its will, and whether anything of it may still run.

use super::LastWill;
use crate::lines::Lines;
use crate::process::guard::tally::{BEGUN, DONE, LONGEST};

/// How a line with a will begins.
const WILL: &str = "will ";

/// The line of a will.
pub(crate) fn line(will: &LastWill) -> Result<String, serde_json::Error> {
    Ok(format!("{WILL}{}", serde_json::to_string(will)?))
}

/// What has been read.
#[derive(Debug)]
pub(crate) struct Estate {
    lines: Lines,
    running: u64,
    will: Option<LastWill>,
    /// Something was read that cannot be: what runs is not known.
    garbled: bool,
}

impl Default for Estate {
    fn default() -> Self {
        Self { lines: Lines::of_at_most(LONGEST), running: 0, will: None, garbled: false }
    }
}

impl Estate {
    /// Takes what has come. The will, if it is a new one.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<LastWill> {
        if self.lines.push(bytes).is_err() {
            self.garbled = true;
        }
        let mut news = None;
        while let Some(line) = self.lines.take() {
            news = self.take(&line).or(news);
        }
        news
    }

    fn take(&mut self, line: &[u8]) -> Option<LastWill> {
        let line = String::from_utf8_lossy(line);
        match (line.as_ref(), line.strip_prefix(WILL)) {
            (BEGUN, _) => self.running += 1,
            (DONE, _) if self.running > 0 => self.running -= 1,
            (_, Some(json)) => match serde_json::from_str::<LastWill>(json) {
                Ok(will) => {
                    self.will = Some(will.clone());
                    return Some(will);
                }
                Err(_) => self.garbled = true,
            },
            _ => self.garbled = true,
        }
        None
    }

    /// At the end of the pipe: what is to be told, if it is known to be true.
    pub(crate) fn settle(self) -> Option<LastWill> {
        let settled = self.running == 0 && self.lines.is_empty() && !self.garbled;
        self.will.filter(|_| settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::table::{Life, Term};

    fn will(term: u64) -> LastWill {
        let (node, life) = ("a".parse().unwrap(), Life("x".to_owned()));
        LastWill { node, life, term: Term(term), members: Vec::new(), tls: None, ttl_ms: 2000 }
    }

    fn settled(pieces: &[&str]) -> Option<LastWill> {
        let mut estate = Estate::default();
        pieces.iter().for_each(|piece| drop(estate.read(piece.as_bytes())));
        estate.settle()
    }

    #[test]
    fn the_last_will_counts_once_every_guard_is_done() {
        let (old, new) = (line(&will(1)).unwrap(), line(&will(2)).unwrap());
        let text = format!("+\n{old}\n+\n-\n{new}\n-\n");
        assert_eq!(settled(&[&text]), Some(will(2)));
        let (one, two) = text.split_at(text.len() / 2);
        assert_eq!(settled(&[one, two]), Some(will(2)), "in pieces");
        assert_eq!(settled(&[&format!("{old}\n")]), Some(will(1)), "there was no guard");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let will = line(&will(1)).unwrap();
        for text in [
            String::new(),
            format!("{will}\n+\n+\n-\n"),
            format!("+\n{will}\n-"),
            format!("{will}\n-\n+\n"),
            format!("{will}\nwill {{}}\n"),
            format!("{will}\n{}\n", "x".repeat(2 * LONGEST)),
        ] {
            assert_eq!(settled(&[&text]), None, "{text}");
        }
    }
}
