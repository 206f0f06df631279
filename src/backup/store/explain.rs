//! What a bucket's service says, as an operator can use it.

use std::error::Error as _;

use object_store::Error;

use super::StoreError;

/// Characters of what a service says.
const LONGEST: usize = 400;

/// To a service a bucket that is not there is an object that is not there.
pub(super) fn no_bucket(error: StoreError) -> StoreError {
    match error {
        StoreError::NotThere(why) => StoreError::Refused(format!("there is no such bucket: {why}")),
        other => other,
    }
}

pub(super) fn explain(error: &Error) -> StoreError {
    let text = whole(error);
    if text.contains("RequestTimeTooSkewed") {
        let what = "the store says that this machine's clock is off: set it (NTP)";
        return StoreError::ClockOff(format!("{what}. {}", short(&text)));
    }
    if are_refused(error, &text) {
        let what = "the store refuses the credentials of the environment";
        return StoreError::Refused(format!("{what}: {}", short(&text)));
    }
    if has_no_bucket(&text) {
        return no_bucket(StoreError::NotThere(short(&text)));
    }
    match error {
        Error::NotFound { .. } => StoreError::NotThere(short(&text)),
        _ => StoreError::Failed(short(&text)),
    }
}

/// Whether it is the credentials that were refused: where an object is asked for, in a listing, or where a
/// token is to be had for them.
fn are_refused(error: &Error, text: &str) -> bool {
    match (error, status(text)) {
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) => true,
        (Error::Generic { .. }, Some(401 | 403)) => true,
        (Error::Generic { .. }, Some(400 | 404)) => text.contains("token request"),
        _ => false,
    }
}

/// By the services' own words for it; and of what is listed only the bucket can be missing.
fn has_no_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
        || (text.contains("list request") && status(text) == Some(404))
}

/// The crate gives no kind to what refuses a listing or a token: the status stands in its text only.
fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// With all of its causes.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn short(text: &str) -> String {
    text.replace('\n', " ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(status: &str) -> Error {
        let text = format!(
            "Error performing list request: Server returned non-2xx status code: {status}: <Error/>"
        );
        Error::Generic { store: "GCS", source: text.into() }
    }

    fn token(says: &str) -> Error {
        let text = format!("Error performing token request: {says}");
        Error::Generic { store: "GCS", source: text.into() }
    }

    fn refused(found: &StoreError, word: &str) -> bool {
        matches!(found, StoreError::Refused(why) if why.contains(word))
    }

    #[test]
    fn a_listing_that_is_refused_is_told_as_such() {
        assert!(refused(&explain(&listing("403 Forbidden")), "credentials"));
        assert!(refused(&explain(&listing("401 Unauthorized")), "credentials"));
        assert!(refused(&explain(&listing("404 Not Found")), "no such bucket"));
        let busy = explain(&listing("503 Service Unavailable"));
        assert!(matches!(busy, StoreError::Failed(_)), "{busy:?}");
    }

    #[test]
    fn credentials_that_give_no_token_are_refused_and_a_server_that_is_away_is_not() {
        let says =
            "Server returned non-2xx status code: 400 Bad Request: {\"error\": \"invalid_grant\"}";
        assert!(refused(&explain(&token(says)), "credentials"));
        let away = explain(&token("error sending request: connection refused"));
        assert!(matches!(away, StoreError::Failed(_)), "{away:?}");
    }
}
