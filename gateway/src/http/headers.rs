//! What a proxy owes its neighbours: fields that concern one connection only stay there, and requests that come round
//! again are seen. Pure.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        CONNECTION, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
        VIA,
    },
};

/// So many passes through one apex are no accident.
const MAX_PASSES: usize = 8;

/// The protocol that the sender wants to change to, if it says so as it must.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

/// Removes what concerns one connection only, and puts back `upgrade`, where the protocol is to change.
pub fn strip(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let named: Vec<HeaderName> = tokens(headers).filter_map(|token| token.parse().ok()).collect();
    // That trailers are understood is true from end to end here.
    let trailers = headers.get_all(TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named {
        if name != TRAILER {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Removes what was answered on the client's own connection already.
pub fn strip_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    strip(headers, upgrade);
    headers.remove(EXPECT);
}

/// Notes in `headers` that the request passes `apex`. False when it has come round too often.
pub fn pass(headers: &mut HeaderMap, apex: &HeaderValue) -> bool {
    let passes = headers.get_all(VIA).iter().filter(|v| *v == apex).count();
    headers.append(VIA, apex.clone());
    passes < MAX_PASSES
}

/// Whether a request may be sent again when it is not known what became of it.
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
            ("x-kept", "1"),
        ]);
        assert_eq!(upgrade(&headers), None, "not asked for in Connection");
        strip(&mut headers, None);
        assert_eq!(headers, map(&[("te", "trailers"), ("trailer", "x-sum"), ("x-kept", "1")]));
    }

    #[test]
    fn a_change_of_protocol_passes() {
        let mut headers = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
        ]);
        let asked = upgrade(&headers);
        assert_eq!(asked, Some(HeaderValue::from_static("websocket")));
        strip_request(&mut headers, asked);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn what_comes_round_is_seen() {
        let apex = HeaderValue::from_static("1.1 my-api.default.linkspan");
        let mut headers = map(&[("via", "1.1 nginx")]);
        for _ in 0..MAX_PASSES {
            assert!(pass(&mut headers, &apex));
        }
        assert!(!pass(&mut headers, &apex));
        assert!(pass(&mut headers, &HeaderValue::from_static("1.1 other.default.linkspan")));
    }
}
