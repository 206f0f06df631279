//! Values that are no text, and may depend on variables all the same.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use super::go_duration;
use super::variables::has_variable;

/// A value that is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    Is(T),
    /// Whatever variables say: see [`Variables::show`](super::Variables::show).
    Depends(String),
}

pub(crate) type Flag = Option<Setting<bool>>;
pub(crate) type Time = Option<Setting<Duration>>;
pub(crate) type Count = Option<Setting<u32>>;

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

/// How a type stands in the file.
pub trait Scalar: Sized {
    const EXPECTED: &'static str;

    fn from_bool(_: bool) -> Option<Self> {
        None
    }
    fn from_number(_: i128) -> Option<Self> {
        None
    }
    fn from_text(_: &str) -> Option<Self> {
        None
    }
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }

    /// The forms of YAML 1.1, which LiteFS' parser takes where it wants a boolean.
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "y" | "Y" | "yes" | "on" | "True" | "TRUE" => Some(true),
            "n" | "N" | "no" | "off" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(*self)
    }
}

impl Scalar for Duration {
    const EXPECTED: &'static str = "a duration like 10s or 1h30m";

    fn from_text(text: &str) -> Option<Self> {
        go_duration::parse(text)
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&go_duration::text(*self))
    }
}

impl Scalar for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn from_number(number: i128) -> Option<Self> {
        number.try_into().ok()
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(*self)
    }
}

impl<T: Scalar> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Is(value) => value.write(to),
            Self::Depends(text) => to.serialize_str(text),
        }
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SettingVisitor(PhantomData))
    }
}

struct SettingVisitor<T>(PhantomData<T>);

impl<T: Scalar> Visitor<'_> for SettingVisitor<T> {
    type Value = Setting<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        or_refuse(T::from_bool(value), Unexpected::Bool(value), &self)
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Self::Value, E> {
        or_refuse(T::from_number(number), Unexpected::Other("a number"), &self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if has_variable(text) {
            return Ok(Setting::Depends(text.to_owned()));
        }
        or_refuse(T::from_text(text), Unexpected::Str(text), &self)
    }
}

fn or_refuse<T: Scalar, E: Error>(
    value: Option<T>,
    found: Unexpected<'_>,
    visitor: &SettingVisitor<T>,
) -> Result<Setting<T>, E> {
    value.map(Setting::Is).ok_or_else(|| E::invalid_value(found, visitor))
}
