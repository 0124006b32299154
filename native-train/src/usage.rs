//! What the parser of a command line says against it, in one line.

use clap::error::ErrorKind;

/// Whether the parser only shows what was asked for, or all there is to a call that asks for nothing.
pub fn is_help(error: &clap::Error) -> bool {
    !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// What is wrong with a command line, without what the parser adds for people at a terminal.
pub fn refusal(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.split("\nUsage:").next().unwrap_or(&text);
    let said = said.split("\nFor more information").next().unwrap_or(said);
    one_line(said.trim_start_matches("error: "))
}

/// A message of several lines as one.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        line += match line.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        line += part;
    }
    line
}
