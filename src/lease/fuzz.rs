//! What LiteFS asks of the lease: see [`crate::fuzz`].

use http::Method;

use super::request::Ask;

/// `METHOD path?query`, a line end, and the body. What is understood is bounded.
pub(crate) fn request(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(line) = std::str::from_utf8(&data[..end]) else { return };
    let body = data.get(end + 1..).unwrap_or_default();
    let (method, target) = line.split_once(' ').unwrap_or(("PUT", line));
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let method = method.parse().unwrap_or(Method::GET);
    match Ask::read(&method, path, query, body) {
        Some(Ask::SetClusterId(id)) => assert!(id.as_bytes() == body && id.len() <= 256),
        Some(Ask::Acquire(id) | Ask::Renew(id) | Ask::Release(id) | Ask::Destroy(id)) => {
            assert!(target.contains(&id.0) && id.0.len() <= 256);
        }
        _ => {}
    }
}
