//! `backup.url`: where backups are kept.

use crate::yaml::value::ValueError;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A directory, or a bucket and a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As it was written, without a slash at its end.
    url: String,
    pub(crate) scheme: Scheme,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    File(PathBuf),
    /// S3, Google's or Azure's, by the URL's scheme.
    Bucket,
}

const FORMS: &str =
    "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory";

impl Place {
    #[cfg(feature = "cloud")]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What follows the bucket's name, without slashes at its ends.
    #[cfg(any(feature = "cloud", test))]
    pub(crate) fn prefix(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_once('/').map_or("", |(_, prefix)| prefix.trim_matches('/'))
    }
}

impl FromStr for Place {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim_end_matches('/');
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("no URL: {FORMS}"))?;
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if rest.contains('@') || !plain || rest.contains(['?', '#', '%']) {
            return Err(format!(
                "neither credentials nor parameters may stand in it (credentials come from the environment): {FORMS}"
            ).into());
        }
        let scheme = match scheme {
            "file" if rest.starts_with('/') => Scheme::File(rest.into()),
            "s3" | "gs" | "az" if !rest.is_empty() && !rest.starts_with('/') => Scheme::Bucket,
            _ => return Err(format!("not a place for backups: {FORMS}").into()),
        };
        Ok(Self { url: text.to_owned(), scheme })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_people_expect_are_understood() {
        let file: Place = "file:///var/backups/shop/".parse().unwrap();
        assert_eq!(file.scheme, Scheme::File("/var/backups/shop".into()));
        for (url, prefix) in
            [("s3://bucket/a/b/", "a/b"), ("gs://bucket", ""), ("az://container/x", "x")]
        {
            let place: Place = url.parse().unwrap();
            assert_eq!((&place.scheme, place.prefix()), (&Scheme::Bucket, prefix), "{url}");
        }
        for bad in [
            "",
            "/var",
            "file://x",
            "s3://",
            "s3:///x",
            "http://x/y",
            "s3://key:secret@b/x",
            "s3://b/?x",
        ] {
            let error = bad.parse::<Place>().unwrap_err();
            assert!(error.to_string().contains("s3://bucket/prefix"), "{bad}: {error}");
        }
    }
}
