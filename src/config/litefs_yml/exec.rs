//! `exec:`, one command or a list of them.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Flag;

/// An item of `exec:`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Exec {
    pub(crate) cmd: String,
    pub(crate) if_candidate: Flag,
}

pub(super) fn commands<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Exec>, D::Error> {
    from.deserialize_option(Commands)
}

struct Commands;

impl<'de> Visitor<'de> for Commands {
    type Value = Vec<Exec>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command or a list of `cmd: COMMAND`")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_string(self)
    }

    fn visit_str<E: Error>(self, cmd: &str) -> Result<Self::Value, E> {
        Ok(vec![Exec { cmd: cmd.to_owned(), if_candidate: None }])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        std::iter::from_fn(|| items.next_element().transpose()).collect()
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Exec::deserialize(MapAccessDeserializer::new(map)).map(|exec| vec![exec])
    }
}
