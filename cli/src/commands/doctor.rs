//! `doctor`: where the time between two devices goes.

use super::{
    Session,
    replicate::{block_on, choice, target},
};
use crate::{
    args::DoctorArgs,
    failure::{Code, Failure},
    render::{self, Format},
};
use mirror_engine::replicate::doctor::{self, Finding};
use std::time::Duration;

pub(super) fn doctor(session: &Session, args: &DoctorArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    let target = target(session, &vault, &args.peer, args.device)?;
    let (output, talk) = (session.output.clone(), session.talk.clone());
    // People see each line as it is measured; a reader of stdout that has gone is noticed at the end.
    let tell = move |finding: &Finding| match output.format() {
        Format::Json => drop(output.line(&render::json_line(&render::finding_record(finding))).and_then(|()| output.flush())),
        Format::Text => talk.note(&render::finding_text(finding)),
    };
    let time = Duration::from_secs(args.seconds);
    let diagnosis = block_on(doctor::examine(&vault, &target, choice(args.transport), time, &tell))??;
    session.output.show(|| render::diagnosis_record(&target.name, &diagnosis), || render::diagnosis_text(&target.name, &diagnosis))?;
    Ok(Code::Ok)
}
