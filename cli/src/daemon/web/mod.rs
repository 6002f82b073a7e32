//! The status page and metrics: HTTP on the loopback interface, each on a port of its own, only when asked for.
//!
//! ```text
//! --ui      ─► Seated ─► guard ─┬─ GET  /                    page.html, with a nonce and the token
//!                               ├─ GET  /api/state           what the control socket says, too
//!                               ├─ GET  /api/details/VAULT   counts, conflicts and why
//!                               └─ POST /api/resolve         a user's decision
//! --metrics ─► Seated ───────────── GET  /metrics            OpenMetrics text
//! ```
//! # Invariants
//! - The page is answered to this user's programs only, as far as the system tells whose a connection is ([`caller`]).
//! - Nothing is changed by a request that did not come from the page: it must carry the page's token and its origin ([`guard`]).
//! - The page loads nothing from anywhere, and runs nothing that did not come with it.

mod caller;
mod details;
mod guard;
mod metrics;
mod seated;

use super::run::Daemon;
use crate::failure::Failure;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use details::{Decision, Details};
use guard::Gate;
use seated::{Admit, Seated};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, task::JoinSet};

/// Longest body of a request: a key at its longest, in hexadecimal.
const BODY_BYTES_MAX: usize = 64 * 1024;
const PAGE: &str = include_str!("page.html");

/// The pages that are open.
#[derive(Debug, Default)]
pub(super) struct Pages {
    ui: Option<Page>,
    metrics: Option<Page>,
}

/// One port. Closed when it is dropped.
#[derive(Debug)]
struct Page {
    asked: SocketAddr,
    open: SocketAddr,
    _serving: JoinSet<()>,
}

/// Opens what is asked for.
///
/// # Errors
/// When a port cannot be had.
pub(super) async fn open(ui: Option<SocketAddr>, metrics: Option<SocketAddr>, daemon: &Arc<Daemon>) -> Result<Pages, Failure> {
    let mut pages = Pages::default();
    if let Some(address) = ui {
        pages.ui = Some(open_ui(address, daemon).await?);
    }
    if let Some(address) = metrics {
        let routes = Router::new().route("/metrics", get(metrics_text)).with_state(daemon.clone());
        pages.metrics = Some(Page::open(address, Admit::Anybody, |_| routes).await?);
    }
    Ok(pages)
}

impl Pages {
    /// Where they are, for people.
    pub(super) fn places(&self) -> (Option<String>, Option<String>) {
        let ui = self.ui.as_ref().map(|page| format!("http://{}/", page.open));
        (ui, self.metrics.as_ref().map(|page| format!("http://{}/metrics", page.open)))
    }

    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// The same pages at other addresses. One that stays where it is goes on undisturbed; one that cannot be had is said and left out.
    pub(super) async fn moved(mut self, ui: Option<SocketAddr>, metrics: Option<SocketAddr>, daemon: &Arc<Daemon>) -> Self {
        let stays = |page: &Option<Page>, asked| page.as_ref().map(|page| page.asked) == asked;
        for (is_ui, asked) in [(true, ui), (false, metrics)] {
            let page = if is_ui { &mut self.ui } else { &mut self.metrics };
            if stays(page, asked) {
                continue;
            }
            *page = None;
            let opened = if is_ui { open(asked, None, daemon).await } else { open(None, asked, daemon).await };
            match opened {
                Ok(opened) => *page = if is_ui { opened.ui } else { opened.metrics },
                Err(failure) => tracing::error!("{}", failure.message),
            }
        }
        self
    }
}

impl Page {
    async fn open(address: SocketAddr, admit: Admit, routes: impl FnOnce(SocketAddr) -> Router) -> Result<Self, Failure> {
        let failed = |error| Failure::io(format!("cannot serve a page at {address}"), &error).hint("name a port that is free; 0 takes any");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let open = listener.local_addr().map_err(failed)?;
        let serve = axum::serve(Seated::new(listener, admit), routes(open));
        let serving = JoinSet::from_iter([async move { drop(serve.await) }]);
        Ok(Self { asked: address, open, _serving: serving })
    }
}

async fn open_ui(address: SocketAddr, daemon: &Arc<Daemon>) -> Result<Page, Failure> {
    let token = guard::random_word()?;
    Page::open(address, Admit::OwnUser, |open| {
        let gate = Arc::new(Gate::new(open, token));
        Router::new()
            .route("/", get(page))
            .route("/api/state", get(state))
            .route("/api/details/{vault}", get(details))
            .route("/api/resolve", post(resolve))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(gate.clone(), guard::check))
            .with_state(Ui { daemon: daemon.clone(), gate })
    })
    .await
}

#[derive(Clone)]
struct Ui {
    daemon: Arc<Daemon>,
    gate: Arc<Gate>,
}

/// The page, with a nonce that only this answer has, and the token that lets it ask.
async fn page(State(ui): State<Ui>) -> Response {
    let Ok(nonce) = guard::random_word() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let html = PAGE.replace("{{nonce}}", &nonce).replace("{{token}}", ui.gate.token());
    ([(header::CONTENT_SECURITY_POLICY, guard::policy(&nonce))], Html(html)).into_response()
}

async fn state(State(ui): State<Ui>) -> Response {
    blocking(move || Ok(ui.daemon.state())).await
}

async fn details(State(ui): State<Ui>, Path(vault): Path<String>) -> Response {
    let Some(vault) = ui.daemon.vault(&vault) else { return StatusCode::NOT_FOUND.into_response() };
    blocking(move || Details::of(&vault)).await
}

async fn resolve(State(ui): State<Ui>, Json(decision): Json<Decision>) -> Response {
    let Some(vault) = ui.daemon.vault(&decision.vault) else { return StatusCode::NOT_FOUND.into_response() };
    blocking(move || decision.make(&vault)).await
}

async fn metrics_text(State(daemon): State<Arc<Daemon>>) -> Response {
    let asked = tokio::task::spawn_blocking(move || metrics::text(&daemon.state())).await;
    match asked {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Answers with JSON what may take a disk's time: what was asked for, or what went wrong and what to do.
async fn blocking<T: serde::Serialize + Send + 'static>(ask: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(ask).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(failure)) => (StatusCode::CONFLICT, Json(super::control::Refusal::from(failure))).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
