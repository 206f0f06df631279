//! Reading a request's body: small, and soon.

use std::error::Error;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::reply::Failure;

/// Bytes; a change of the membership has some 400 at most.
const MAX_BODY: usize = 4 * 1024;

/// A whole body.
///
/// # Errors
///
/// When it is too large, does not come within `limit`, or breaks off.
pub(crate) async fn read<B>(body: B, limit: Duration) -> Result<Bytes, Failure>
where
    B: Body<Data: Buf, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let announced = body.size_hint().lower();
    let whole = async {
        if announced > MAX_BODY as u64 {
            return Err(too_large());
        }
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(why) if why.is::<LengthLimitError>() => Err(too_large()),
            Err(why) => Err(Failure::bad_request(format!("the body breaks off: {why}"))),
        }
    };
    timeout(limit, whole).await.unwrap_or_else(|_| {
        let detail = format!("the body did not come within {limit:?}");
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail))
    })
}

fn too_large() -> Failure {
    let detail = format!("a body may have {MAX_BODY} bytes here");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
}
