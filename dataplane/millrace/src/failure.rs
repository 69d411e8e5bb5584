//! Why a command failed, for the person who typed it: what, where, and what to do.

use std::fmt;
use std::process::ExitCode;

use pmd::{EalError, PortError};
use schema::{Errors, Location};

/// The end of a command that did not work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration was refused.
    Configuration(Errors),
    /// Something else was in the way.
    Other(Box<Problem>),
    /// What is wrong has been said already.
    Reported(u8),
}

/// One thing that was in the way.
#[derive(Debug, Default)]
pub(crate) struct Problem {
    what: String,
    place: Option<Location>,
    hint: Option<String>,
    /// What others said about it, oldest first.
    log: Vec<String>,
}

impl Failure {
    /// What happened.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Other(Box::new(Problem { what: what.into(), ..Problem::default() }))
    }

    /// Where in the configuration the cause stands.
    pub(crate) fn at(self, place: &Location) -> Self {
        self.with(|problem| problem.place = Some(place.clone()))
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.with(|problem| problem.hint = Some(hint.into()))
    }

    fn log(self, lines: &[String]) -> Self {
        self.with(|problem| lines.clone_into(&mut problem.log))
    }

    fn with(mut self, change: impl FnOnce(&mut Problem)) -> Self {
        if let Self::Other(problem) = &mut self {
            change(problem);
        }
        self
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(2),
            Self::Other(_) => ExitCode::FAILURE,
            Self::Reported(code) => ExitCode::from(*code),
        }
    }
}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Self {
        Self::Configuration(errors)
    }
}

impl From<EalError> for Failure {
    fn from(error: EalError) -> Self {
        Self::new(error.to_string()).hint(error.hint()).log(error.log())
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let log: &[String] = if let PortError::Refused { log, .. } = &error { log } else { &[] };
        Self::new(error.to_string()).hint(error.hint()).log(log)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(errors) => writeln!(f, "{errors}"),
            Self::Reported(_) => Ok(()),
            Self::Other(problem) => {
                writeln!(f, "error: {}", problem.what)?;
                if let Some(place) = &problem.place {
                    writeln!(f, "  at {place} ({})", place.field)?;
                }
                for line in &problem.log {
                    writeln!(f, "  DPDK: {}", line.trim_end())?;
                }
                match &problem.hint {
                    Some(hint) => writeln!(f, "  hint: {hint}"),
                    None => Ok(()),
                }
            }
        }
    }
}
