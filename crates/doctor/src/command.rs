/// One of the four commands that policies are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command {
    /// As the catalogue has it.
    pub(crate) letter: char,
    /// As SQL has it.
    pub(crate) word: &'static str,
    /// Whether it finds rows.
    pub(crate) finds: bool,
    /// Whether it makes rows.
    pub(crate) makes: bool,
}

/// All four.
pub(crate) const COMMANDS: [Command; 4] = [
    command('r', "SELECT", true, false),
    command('a', "INSERT", false, true),
    command('w', "UPDATE", true, true),
    command('d', "DELETE", true, false),
];

const fn command(letter: char, word: &'static str, finds: bool, makes: bool) -> Command {
    Command {
        letter,
        word,
        finds,
        makes,
    }
}
