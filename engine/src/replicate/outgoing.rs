//! Messages on their way to the peer, and how much of them waits.
//!
//! The session may say something at any time, so the queue has no end of its own. What it says by itself is bounded by windows that
//! the peer has to open; what it answers is not: a peer could ask for chunks inline, for ever, and never read them. Whoever answers
//! therefore waits for room here before it reads a chunk, and the peer's wants stay unanswered, of which it may have a few only.
//! Reading what the peer says goes on meanwhile, so two peers that both have much to say never wait for each other.

use crate::{
    clock,
    transport::{Changes, ControlSender, TransportError},
};
use bytes::Bytes;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

/// Bytes that may wait before answers are held back: enough to keep a fast link busy.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Messages are handed to the transport together up to about this much.
const TOGETHER_BYTES: usize = 64 << 10;

/// A connection is young for so long: it takes three round trips without an answer for a loss, until it has seen how even they are.
const YOUNG: Duration = Duration::from_secs(1);
/// After what was said last on a young connection the peer is nudged so often, after such pauses: a lost last packet is sent again a round
/// trip later.
const NUDGES: u32 = 2;
const NUDGE_AFTER: Duration = Duration::from_millis(40);

#[derive(Debug, Default)]
struct Level {
    bytes: usize,
    closed: bool,
}

/// How much waits. Shared by who says, who sends and who answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge(Arc<(Mutex<Level>, Notify)>);

impl Gauge {
    fn level(&self) -> MutexGuard<'_, Level> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for answers, or nobody sends any more. For one at a time.
    pub(super) async fn room(&self) {
        while self.is_full() {
            self.0.1.notified().await;
        }
    }

    fn is_full(&self) -> bool {
        let level = self.level();
        level.bytes > WAITING_BYTES_MAX && !level.closed
    }
}

/// Where the session's messages go.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: mpsc::UnboundedSender<Bytes>,
    gauge: Gauge,
}

/// What is to be sent, in order. Dropped, it lets everybody go who waits for room.
#[derive(Debug)]
pub(super) struct Outbound {
    messages: mpsc::UnboundedReceiver<Bytes>,
    gauge: Gauge,
}

/// A queue of messages, both ends of it, and its gauge.
pub(super) fn queue() -> (Outgoing, Outbound, Gauge) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Gauge::default();
    (Outgoing { messages: sender, gauge: gauge.clone() }, Outbound { messages: receiver, gauge: gauge.clone() }, gauge)
}

impl Outgoing {
    /// Queues a message. If nobody sends any more the connection is gone, and the control stream says why.
    pub(super) fn say(&self, message: Bytes) {
        let bytes = message.len();
        self.gauge.level().bytes += bytes;
        if self.messages.send(message).is_err() {
            self.gauge.level().bytes -= bytes;
        }
    }
}

impl Outbound {
    /// The next message and what waits behind it, as far as it goes well together; none when nothing more will be said. They wait no
    /// longer once [`Outbound::sent`] is called.
    pub(super) async fn next(&mut self) -> Option<Vec<Bytes>> {
        let mut messages = vec![self.messages.recv().await?];
        let mut bytes = messages[0].len();
        while bytes < TOGETHER_BYTES
            && let Ok(message) = self.messages.try_recv()
        {
            bytes += message.len();
            messages.push(message);
        }
        Some(messages)
    }

    /// Says all that is to be said, in order. Nudges the peer while the connection is young, and when this machine's network has changed: so
    /// that a peer that hears us elsewhere answers there at once, and a silence means something.
    ///
    /// # Errors
    /// Why the connection ended.
    pub(super) async fn say_all(
        mut self,
        mut control: ControlSender,
        mut changes: Option<Changes>,
    ) -> Result<ControlSender, TransportError> {
        let (began, mut nudges) = (clock::now(), 0);
        loop {
            select! {
                messages = self.next() => {
                    let Some(messages) = messages else { return Ok(control) };
                    let bytes = messages.iter().map(Bytes::len).sum();
                    control.send_each(messages).await?;
                    self.sent(bytes);
                    nudges = if clock::now().duration_since(began) < YOUNG { NUDGES } else { 0 };
                }
                () = sleep(NUDGE_AFTER), if nudges > 0 => {
                    control.nudge().await?;
                    nudges -= 1;
                }
                () = next_change(&mut changes) => {
                    control.nudge().await?;
                    nudges = NUDGES;
                }
            }
        }
    }

    /// Messages of `bytes` have been handed to the transport.
    pub(super) fn sent(&self, bytes: usize) {
        self.gauge.level().bytes -= bytes;
        self.gauge.0.1.notify_one();
    }
}

/// Waits until the network is another one; for ever where nothing tells. Cancel-safe.
pub(super) async fn next_change(changes: &mut Option<Changes>) {
    if let Some(listening) = changes
        && listening.next().await.is_ok()
    {
        return;
    }
    *changes = None;
    std::future::pending().await
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.gauge.level().closed = true;
        self.gauge.0.1.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (Outgoing, Outbound, Gauge) {
        let (outgoing, outbound, gauge) = queue();
        outgoing.say(Bytes::from(vec![0; WAITING_BYTES_MAX + 1]));
        (outgoing, outbound, gauge)
    }

    #[tokio::test]
    async fn answers_wait_for_room_until_a_message_is_sent() {
        let (outgoing, outbound, gauge) = full();
        let sending = async {
            tokio::task::yield_now().await;
            outbound.sent(WAITING_BYTES_MAX + 1);
        };
        tokio::join!(gauge.room(), sending);
        outgoing.say(Bytes::from_static(b"more"));
        gauge.room().await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_connection_that_is_gone() {
        let (_outgoing, outbound, gauge) = full();
        let ending = async {
            tokio::task::yield_now().await;
            drop(outbound);
        };
        tokio::join!(gauge.room(), ending);
    }
}
