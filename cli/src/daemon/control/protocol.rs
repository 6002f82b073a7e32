//! What is said over the control socket: JSON lines, a question each, and an answer each in the same order.
//!
//! ```text
//! {"do":"status"}                                   ─► {"type":"daemon",...}
//! {"do":"limits","send":2500000,"receive":null}     ─► {"type":"daemon",...}   bytes a second; null is no limit
//! {"do":"pause","vault":"/home/me/photos"}          ─► {"type":"daemon",...}   without `vault`: all of them
//! {"do":"stop"}                                     ─► {"type":"daemon",...}   then it ends
//! anything else                                     ─► {"type":"error","code":2,...}
//! ```
//! Unknown fields of an answer are passed over, so that an older program understands a newer daemon; an unknown question is an error.

use crate::{
    daemon::state::DaemonState,
    failure::{Code, Failure},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// In this device's directory.
pub(crate) const SOCKET: &str = "mirord.sock";
/// Longest question. A path is its longest part.
pub(super) const QUESTION_BYTES_MAX: usize = 16 * 1024;
/// Longest answer: peers of many vaults at their longest.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Whoever asks at once.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// What the daemon is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// What is going on.
    Status,
    /// Other rates from now on, in bytes a second.
    Limits {
        /// What leaves.
        send: Option<u64>,
        /// What comes.
        receive: Option<u64>,
    },
    /// Rates by the clock from now on.
    Timetable {
        /// As in `08:00,1MiB 19:00,off`.
        entries: String,
    },
    /// No sessions until `resume`.
    Pause {
        /// Of this vault; of all if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<PathBuf>,
    },
    /// Sessions again, at once, whatever stood still.
    Resume {
        /// Of this vault; of all if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<PathBuf>,
    },
    /// The end, in order.
    Stop,
}

/// Why a question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: u8,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) causes: Vec<String>,
    #[serde(default)]
    pub(crate) hint: Option<String>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code.number(), message: failure.message, causes: failure.causes, hint: failure.hint }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let failure = Self::new(Code::of_number(refusal.code), refusal.message);
        let failure = refusal.causes.into_iter().fold(failure, Self::cause);
        refusal.hint.into_iter().fold(failure, Self::hint)
    }
}

/// A line from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answer {
    Daemon(Box<DaemonState>),
    Error(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_as_they_are_documented() {
        let of = |text: &str| serde_json::from_str::<Question>(text).unwrap();
        assert_eq!(of(r#"{"do":"status"}"#), Question::Status);
        assert_eq!(of(r#"{"do":"limits","send":2500000,"receive":null}"#), Question::Limits { send: Some(2_500_000), receive: None });
        assert_eq!(
            of(r#"{"do":"timetable","entries":"08:00,1MiB 19:00,off"}"#),
            Question::Timetable { entries: "08:00,1MiB 19:00,off".into() }
        );
        assert_eq!(of(r#"{"do":"pause","vault":"/v"}"#), Question::Pause { vault: Some("/v".into()) });
        assert_eq!(of(r#"{"do":"resume"}"#), Question::Resume { vault: None });
        for wrong in [r#"{"do":"dance"}"#, r#"{"do":"pause","valt":"/v"}"#, "{}", "[]", "status"] {
            assert!(serde_json::from_str::<Question>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_failure_survives_the_way() {
        let failure = Failure::new(Code::NoVault, "no vault").cause("gone").hint("look");
        assert_eq!(Failure::from(Refusal::from(failure.clone())), failure);
    }

    #[test]
    fn an_answer_of_a_newer_daemon_is_understood() {
        let line =
            r#"{"type":"daemon","version":"9","pid":7,"home":"/h","since_ms":1,"vaults":[],"limits":{"send":null,"receive":5},"new":true}"#;
        let Answer::Daemon(state) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        assert_eq!((state.pid, state.limits.receive), (7, Some(5)));
    }
}
