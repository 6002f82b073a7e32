//! Healing: what was lost is asked for from one replica after the other, until nothing is missing or all have been asked.
//!
//! Each is an ordinary pull: the session does the asking, and events that are new come along.

use super::{Observer, Options, ReplicateError, Summary, Target, sync};
use crate::{session::Direction, vault::Vault};
use std::sync::Arc;

/// What came of asking one replica.
#[derive(Debug)]
pub struct Asked {
    /// Its name.
    pub peer: String,
    /// What the session did; also when the replica lacked some of it.
    pub result: Result<Summary, ReplicateError>,
}

/// Asks `targets` for what was lost here, in turn, as long as anything is missing.
///
/// # Errors
/// [`ReplicateError::Cancelled`], and when this replica's own store fails. A replica that cannot be asked is in the answer.
pub async fn heal(vault: &Vault, targets: &[Target], options: &Options, observer: Arc<dyn Observer>) -> Result<Vec<Asked>, ReplicateError> {
    let options = Options { direction: Direction::Pull, dry_run: false, ..options.clone() };
    let mut asked = Vec::new();
    for target in targets {
        if vault.store().is_whole().map_err(crate::vault::VaultError::from)? {
            break;
        }
        let result = match sync(vault, target, &options, observer.clone()).await {
            Err(ReplicateError::Partial(summary)) => Ok(*summary),
            Err(ReplicateError::Cancelled) => return Err(ReplicateError::Cancelled),
            result => result,
        };
        asked.push(Asked { peer: target.name.clone(), result });
    }
    Ok(asked)
}
