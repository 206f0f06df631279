//! A tree as what serde reads from, so that a type's derive says which keys there are.
//!
//! serde stops at the first error. [`read`] takes the key that it names out of the tree and reads
//! again, so that here, too, every problem is told at once.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Key, Node, Place, Value, shorten, suggest};

/// Each costs one more reading.
const MOST_PROBLEMS: usize = 100;

/// One thing in a tree that does not fit a type.
#[derive(Debug)]
pub struct Misfit {
    /// The keys that lead there, the innermost first.
    path: Vec<String>,
    /// What was expected there, or the whole message once the value is known.
    message: String,
    is_expectation: bool,
    /// Where it stands: a key or a value.
    place: Option<Place>,
    /// The innermost key.
    key: Option<Place>,
}

/// The mapping as a `T`, as far as it fits, and everything that does not. `T` must take a mapping
/// that lacks any key.
pub(crate) fn read<T: DeserializeOwned + Default>(mut node: Node) -> (T, Vec<Misfit>) {
    let mut misfits = Vec::new();
    while misfits.len() < MOST_PROBLEMS {
        match T::deserialize(&node) {
            Ok(value) => return (value, misfits),
            Err(misfit) => {
                let key = misfit.key;
                misfits.push(misfit);
                let Some(key) = key else { break };
                remove(&mut node, key);
            }
        }
    }
    (T::default(), misfits)
}

fn remove(node: &mut Node, at: Place) {
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|(key, _)| key.place != at);
            entries.iter_mut().for_each(|(_, value)| remove(value, at));
        }
        Value::List(items) => items.iter_mut().for_each(|item| remove(item, at)),
        _ => {}
    }
}

impl Misfit {
    fn new(message: String) -> Self {
        Self { path: Vec::new(), message, is_expectation: false, place: None, key: None }
    }

    /// The keys that lead there: `lease.consul`.
    pub(crate) fn path(&self) -> String {
        self.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    fn of_value(mut self, node: &Node) -> Self {
        if self.is_expectation {
            self.message = format!("{} where {} is expected", node.describe(), self.message);
            self.is_expectation = false;
        }
        self.place.get_or_insert(node.place);
        self
    }

    fn below(mut self, key: &Key) -> Self {
        self.path.push(shorten(&key.text));
        self.place.get_or_insert(key.place);
        self.key.get_or_insert(key.place);
        self
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let value = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(number) => visitor.visit_i128(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        };
        value.map_err(|misfit| misfit.of_value(self))
    }

    /// See [`Node::word`].
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let value = match self.word() {
            Some(word) if word.contains('\0') => {
                Err(Misfit::new("a NUL in a text: remove it".to_owned()))
            }
            Some(word) => visitor.visit_str(word),
            None => return self.deserialize_any(visitor),
        };
        value.map_err(|misfit| misfit.of_value(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Nothing is an empty list.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_seq(Items([].iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    /// Nothing is an empty mapping.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_map(Entries { rest: [].iter(), value: None }),
            Value::Map(_) => self.deserialize_any(visitor),
            _ => {
                let found = self.describe();
                let message = format!("{found} where a mapping is expected: write `key: value`");
                Err(Misfit::new(message).of_value(self))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str bytes byte_buf unit
        unit_struct newtype_struct tuple tuple_struct map enum identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        self.value = self.rest.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let name = StrDeserializer::new(&key.text);
        seed.deserialize(name).map(Some).map_err(|misfit: Misfit| misfit.below(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some((key, node)) = self.value else {
            return Err(Misfit::new("a value without a key".to_owned()));
        };
        seed.deserialize(node).map_err(|misfit| misfit.below(key))
    }
}

impl de::Error for Misfit {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { is_expectation: true, ..Self::new(expected.to_string()) }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key: {}", suggest::among(field, expected)))
    }
}

impl Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}
