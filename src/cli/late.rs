//! Commands of commands, described only when one of them is asked for: to describe all of them takes
//! longer than most commands take.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand};

/// The commands of a command.
#[derive(Debug)]
pub struct Late<T>(pub T);

impl<T: Subcommand> Args for Late<T> {
    fn augment_args(command: Command) -> Command {
        command.subcommand_required(true).arg_required_else_help(true).defer(described::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(T::augment_subcommands_for_update)
    }
}

/// With its commands; what it is about stays what it was.
fn described<T: Subcommand>(command: Command) -> Command {
    let about = command.get_about().cloned();
    let command = T::augment_subcommands(command);
    match about {
        Some(about) => command.about(about),
        None => command,
    }
}

impl<T: FromArgMatches> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}
