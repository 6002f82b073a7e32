//! The phases of a session, as one total table: every input in every phase has a row, and the compiler sees to it.
//!
//! What happens *inside* a phase (windows, wants, commits) is the business of the sending and the receiving half; this table only
//! says what may be said when, and how a session ends. The specification holds the same table, printed by a test.

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The peer's Hello has not been opened. A listener is silent.
    Greeting,
    /// Events, wants and chunks flow both ways.
    Exchanging,
    /// The same, and on after both are equal: until one side ends it.
    Live,
    /// We said Finished: all we had to send is acknowledged.
    SentAll,
    /// The peer said Finished.
    HeardAll,
    /// Nothing more is said; a commit that runs is waited for.
    Closing,
    /// Over.
    Ended,
}

/// What moves a session from phase to phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A Hello opened, with another root than ours, or one side has lost chunks that the other may have.
    HelloDiffers,
    /// A Hello opened, with our root, and nothing is to be healed.
    HelloIdentical,
    /// A Hello opened, whatever its root, and both sides stay.
    HelloLive,
    /// Events, Chunks or Served: what a sender says.
    Offer,
    /// Want.
    Want,
    /// Applied, Damaged or Healed: what a receiver reports.
    Report,
    /// Finished, from the peer.
    PeerFinished,
    /// Our last event has been acknowledged and our last want served.
    AllSent,
    /// Bye, from the peer.
    PeerBye,
    /// The peer broke a rule, this side failed, or a time limit passed.
    Fault,
    /// The user stops.
    Stop,
    /// No commit is running.
    Settled,
}

/// What an input does in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is handled; the phase stays.
    Stay,
    /// It is handled; the phase changes.
    To(Phase),
    /// It breaks the protocol.
    Refuse(&'static str),
    /// It no longer matters.
    Ignore,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 7] = [Self::Greeting, Self::Exchanging, Self::Live, Self::SentAll, Self::HeardAll, Self::Closing, Self::Ended];

    /// What `input` does in this phase.
    pub fn step(self, input: Input) -> Step {
        use Input::{AllSent, Fault, HelloDiffers, HelloIdentical, HelloLive, Offer, PeerBye, PeerFinished, Report, Settled, Stop, Want};
        match (self, input) {
            (Self::Greeting, HelloDiffers) => Step::To(Self::Exchanging),
            (Self::Greeting, HelloIdentical) => Step::To(Self::Closing),
            (Self::Greeting, HelloLive) => Step::To(Self::Live),
            (Self::Greeting, Offer | Want | Report | PeerFinished) => Step::Refuse("a message came before the Hello"),
            (Self::Greeting, AllSent | Settled) => Step::Ignore,

            (Self::Exchanging | Self::Live | Self::SentAll | Self::HeardAll, HelloDiffers | HelloIdentical | HelloLive) => {
                Step::Refuse("a second Hello")
            }

            (Self::Exchanging, Offer | Want | Report) => Step::Stay,
            (Self::Exchanging, PeerFinished) => Step::To(Self::HeardAll),
            (Self::Exchanging, AllSent) => Step::To(Self::SentAll),

            (Self::Live, Offer | Want | Report) => Step::Stay,
            (Self::Live, PeerFinished) => Step::Refuse("Finished came in a session that stays"),
            (Self::Live, AllSent) => Step::Ignore,

            (Self::SentAll, Offer | Report) => Step::Stay,
            (Self::SentAll, Want) => Step::Refuse("a want came after everything was acknowledged"),
            (Self::SentAll, PeerFinished) => Step::To(Self::Closing),
            (Self::SentAll, AllSent) => Step::Ignore,

            (Self::HeardAll, Want | Report) => Step::Stay,
            (Self::HeardAll, Offer) => Step::Refuse("something was sent after Finished"),
            (Self::HeardAll, PeerFinished) => Step::Refuse("a second Finished"),
            (Self::HeardAll, AllSent) => Step::To(Self::Closing),

            (Self::Exchanging | Self::Live | Self::SentAll | Self::HeardAll, Settled) => Step::Ignore,
            (Self::Greeting | Self::Exchanging | Self::Live | Self::SentAll | Self::HeardAll, PeerBye | Fault | Stop) => {
                Step::To(Self::Closing)
            }

            (Self::Closing, Settled) => Step::To(Self::Ended),
            (
                Self::Closing,
                HelloDiffers | HelloIdentical | HelloLive | Offer | Want | Report | PeerFinished | AllSent | PeerBye | Fault | Stop,
            ) => Step::Ignore,
            (
                Self::Ended,
                HelloDiffers | HelloIdentical | HelloLive | Offer | Want | Report | PeerFinished | AllSent | PeerBye | Fault | Stop
                | Settled,
            ) => Step::Ignore,
        }
    }
}

impl Input {
    /// Every input, in order.
    pub const ALL: [Self; 12] = [
        Self::HelloDiffers,
        Self::HelloIdentical,
        Self::HelloLive,
        Self::Offer,
        Self::Want,
        Self::Report,
        Self::PeerFinished,
        Self::AllSent,
        Self::PeerBye,
        Self::Fault,
        Self::Stop,
        Self::Settled,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_can_end_and_none_comes_back() {
        for phase in Phase::ALL {
            let rank = |phase| Phase::ALL.iter().position(|other| *other == phase);
            for input in Input::ALL {
                if let Step::To(next) = phase.step(input) {
                    assert!(rank(next) > rank(phase), "{phase:?} {input:?} goes back to {next:?}");
                }
            }
            let stopped = match phase.step(Input::Stop) {
                Step::To(next) => next,
                Step::Stay | Step::Refuse(_) | Step::Ignore => phase,
            };
            assert!(stopped == Phase::Ended || stopped.step(Input::Settled) == Step::To(Phase::Ended), "{phase:?}");
        }
    }

    #[test]
    fn a_session_that_stays_ends_only_when_somebody_ends_it() {
        let ends = |input: &Input| matches!(Phase::Live.step(*input), Step::To(_));
        assert_eq!(Input::ALL.into_iter().filter(ends).collect::<Vec<_>>(), [Input::PeerBye, Input::Fault, Input::Stop]);
    }

    #[test]
    fn before_the_hello_only_a_hello_or_an_end_is_heard() {
        for input in [Input::Offer, Input::Want, Input::Report, Input::PeerFinished] {
            assert!(matches!(Phase::Greeting.step(input), Step::Refuse(_)), "{input:?}");
        }
    }
}
