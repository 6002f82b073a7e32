//! Who may ask the status page, and from where: what a browser lets other pages do is not enough to be harmless.
//!
//! - `Host` must be this server's own loopback address: a name that an attacker lets point to 127.0.0.1 (DNS rebinding) is refused.
//! - Whatever is below `/api` needs the token that stands in the page. Other pages cannot read it: they have another origin.
//! - What changes something must also say that it comes from the page (`Origin`), which browsers do by themselves.

use crate::failure::{Code, Failure};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{net::SocketAddr, sync::Arc};

/// The header with the page's token.
const TOKEN: &str = "x-mirror-token";
/// What every answer says.
const HEADERS: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
];

/// What a request is checked against.
#[derive(Debug)]
pub(super) struct Gate {
    hosts: [String; 3],
    token: String,
}

impl Gate {
    /// Of the page that is served at `open`.
    pub(super) fn new(open: SocketAddr, token: String) -> Self {
        let port = open.port();
        Self { hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")], token }
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Why a request is refused, if it is.
    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static str> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text("host").filter(|host| self.hosts.iter().any(|own| own == host));
        let Some(host) = host else { return Some("this page is served at a loopback address only") };
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        let own_origin = text("origin").is_some_and(|origin| origin.strip_prefix("http://") == Some(host));
        let foreign = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
        match () {
            () if path.starts_with("/api/") && !text(TOKEN).is_some_and(|token| same(token, &self.token)) => {
                Some("the page's token is missing")
            }
            () if changes && !own_origin => Some("this did not come from the page"),
            () if foreign && path != "/" => Some("this came from another page"),
            () => None,
        }
    }
}

/// Lets through what comes from the page, and says on every answer how it is to be treated.
pub(super) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match gate.refusal(request.method(), request.uri().path(), request.headers()) {
        Some(reason) => (StatusCode::FORBIDDEN, reason).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Nothing but what came with the page runs, and nothing is loaded from anywhere.
pub(super) fn policy(nonce: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // A nonce is hexadecimal, so this does not fail.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// 256 bits that nobody guesses, in hexadecimal.
///
/// # Errors
/// When the system has none.
pub(super) fn random_word() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(Code::Failed, "the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Takes as long for a word that is nearly right as for any other of its length.
fn same(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.bytes().zip(right.bytes()).fold(0, |differs, (left, right)| differs | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "127.0.0.1:7741";

    fn gate() -> Gate {
        Gate::new("127.0.0.1:7741".parse().unwrap(), "secret".into())
    }

    fn asked(method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Option<&'static str> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect();
        gate().refusal(method, path, &headers)
    }

    #[test]
    fn the_page_itself_may_ask_and_decide() {
        assert_eq!(asked(&Method::GET, "/", &[("host", HOST)]), None);
        assert_eq!(asked(&Method::GET, "/", &[("host", "localhost:7741"), ("sec-fetch-site", "cross-site")]), None, "a link to it");
        assert_eq!(asked(&Method::GET, "/api/state", &[("host", HOST), (TOKEN, "secret"), ("sec-fetch-site", "same-origin")]), None);
        let decision = [("host", HOST), (TOKEN, "secret"), ("origin", "http://127.0.0.1:7741")];
        assert_eq!(asked(&Method::POST, "/api/resolve", &decision), None);
    }

    #[test]
    fn a_name_that_leads_here_is_no_address_of_ours() {
        for host in ["attacker.example:7741", "127.0.0.1:80", "127.0.0.1", "10.0.0.7:7741", "127.0.0.1:7741.attacker.example"] {
            assert!(asked(&Method::GET, "/", &[("host", host)]).is_some(), "{host}");
        }
        assert!(asked(&Method::GET, "/", &[]).is_some(), "no host at all");
    }

    #[test]
    fn without_the_token_or_from_another_page_nothing_is_told_or_changed() {
        assert!(asked(&Method::GET, "/api/state", &[("host", HOST)]).is_some());
        assert!(asked(&Method::GET, "/api/state", &[("host", HOST), (TOKEN, "secreT")]).is_some());
        assert!(asked(&Method::GET, "/api/state", &[("host", HOST), (TOKEN, "secret"), ("sec-fetch-site", "cross-site")]).is_some());
        for origin in [None, Some("null"), Some("https://127.0.0.1:7741"), Some("http://attacker.example"), Some("http://localhost:7741")] {
            let mut headers = vec![("host", HOST), (TOKEN, "secret")];
            headers.extend(origin.map(|origin| ("origin", origin)));
            assert!(asked(&Method::POST, "/api/resolve", &headers).is_some(), "{origin:?}");
        }
        let tokenless = [("host", HOST), ("origin", "http://127.0.0.1:7741")];
        assert!(asked(&Method::POST, "/api/resolve", &tokenless).is_some());
    }

    #[test]
    fn random_words_differ_and_a_policy_names_its_own() {
        let (one, two) = (random_word().unwrap(), random_word().unwrap());
        assert!(one != two && one.len() == 64);
        assert!(policy(&one).to_str().unwrap().contains(&format!("script-src 'nonce-{one}'")));
        assert!(same("ab", "ab") && !same("ab", "aB") && !same("ab", "abc"));
    }
}
