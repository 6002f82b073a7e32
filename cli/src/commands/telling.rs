//! What a server has to tell, told beside it: whoever does not read stdout keeps no session waiting.

use mirror_engine::replicate::Served;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::Duration,
};

/// What may wait to be told. More is left out: nobody reads.
const WAITING_MAX: usize = 1_024;
/// How long the end waits until the rest is told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A thread that tells.
pub(super) struct Telling {
    queue: SyncSender<Served>,
    /// Closed when everything is told.
    told: Receiver<()>,
}

impl Telling {
    /// Tells by `tell`, which may block.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(tell: impl Fn(&Served) + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel::<Served>(WAITING_MAX);
        let (telling, told) = mpsc::channel::<()>();
        thread::Builder::new().name("report".into()).spawn(move || {
            waiting.iter().for_each(|served| tell(&served));
            drop(telling);
        })?;
        Ok(Self { queue, told })
    }

    /// What to hand it to; returns at once.
    pub(super) fn report(&self) -> Arc<dyn Fn(Served) + Send + Sync> {
        let queue = self.queue.clone();
        Arc::new(move |served| {
            if let Err(error) = queue.try_send(served) {
                tracing::warn!(%error, "nobody reads what is told of sessions; some of it is left out");
            }
        })
    }

    /// Tells the rest, unless nobody reads it.
    pub(super) fn finish(self) {
        drop(self.queue);
        // Nothing is ever sent: it is closed, or time is up.
        let _ = self.told.recv_timeout(LAST_WORDS);
    }
}
