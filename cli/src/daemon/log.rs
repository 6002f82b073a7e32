//! The daemon's log: on stderr as text or JSON, in a file as JSON, each line that says something new.

use super::{args::LogFormat, plan::Plan, repeats::Repeats};
use crate::{
    config::{Verbosity, environment},
    failure::Failure,
    logging,
};
use std::sync::Mutex;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::FilterExt,
    fmt::{layer, time::SystemTime},
    layer::SubscriberExt,
    registry::LookupSpan,
};

/// Starts logging, once a process.
///
/// # Errors
/// When the log file cannot be opened.
pub(super) fn start(plan: &Plan) -> Result<Repeats, Failure> {
    let (level, seen, filed) = (level(plan.settings.verbosity), Repeats::default(), Repeats::default());
    let file = plan.settings.log_file.as_deref().map(logging::open).transpose()?;
    let file = file.map(|file| layer().json().with_writer(Mutex::new(file)).with_filter(level.and(filed)));
    let subscriber = Registry::default().with(file).with(stderr(plan.log_format).with_filter(level.and(seen.clone())));
    // A second start in one process (in tests) keeps the first.
    drop(tracing::subscriber::set_global_default(subscriber));
    Ok(seen)
}

fn stderr<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let stderr = layer().with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Json => stderr.json().boxed(),
        // The journal notes the time of each line by itself.
        LogFormat::Text if environment("JOURNAL_STREAM").is_some() => stderr.with_target(false).without_time().boxed(),
        LogFormat::Text => stderr.with_target(false).with_timer(SystemTime).boxed(),
    }
}

fn level(verbosity: Verbosity) -> LevelFilter {
    match verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose(1) => LevelFilter::DEBUG,
        Verbosity::Verbose(_) => LevelFilter::TRACE,
    }
}
