//! The functions of a template: Go's own, those of Sprig 3 that make texts, and Traefik's two.

mod builtins;
mod dicts;
mod encodings;
mod lists;
mod names;
mod numbers;
mod regexes;
mod texts;
mod types;

use super::value::{List, Map, Outcome, Room, Value};
use crate::problem::quoted;
use crate::suggest::nearest;

pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) takes: &'static [Type],
    /// Of any number of further arguments.
    pub(super) rest: Option<Type>,
    pub(super) run: Run,
}

#[derive(Clone, Copy)]
pub(super) enum Run {
    Plain(fn(&Room<'_>, &[Value]) -> Outcome),
    /// Look at no more arguments than they need.
    And,
    Or,
    /// Traefik has it; with the reason why it is not here.
    No(&'static str),
}

/// What a function is declared to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Bool,
    Int,
    Float,
    Text,
    /// `map[string]interface {}`, or nil.
    Map,
}

const fn function(
    name: &'static str,
    takes: &'static [Type],
    run: fn(&Room<'_>, &[Value]) -> Outcome,
) -> Function {
    Function { name, takes, rest: None, run: Run::Plain(run) }
}

const fn variadic(
    name: &'static str,
    takes: &'static [Type],
    rest: Type,
    run: fn(&Room<'_>, &[Value]) -> Outcome,
) -> Function {
    Function { name, takes, rest: Some(rest), run: Run::Plain(run) }
}

const fn no(name: &'static str, why: &'static str) -> Function {
    Function { name, takes: &[], rest: Some(Type::Any), run: Run::No(why) }
}

/// In the order of precedence: Sprig's `slice` wins over Go's.
static TABLES: &[&[Function]] = &[
    builtins::FUNCTIONS,
    texts::FUNCTIONS,
    numbers::FUNCTIONS,
    lists::FUNCTIONS,
    dicts::FUNCTIONS,
    types::FUNCTIONS,
    encodings::FUNCTIONS,
    regexes::FUNCTIONS,
    MISSING,
];

const RANDOM: &str = "a file must mean the same each time it is read";
const TIME: &str = "a file must mean the same each time it is read";
const SECRETS: &str = "make keys, certificates and passwords outside and name their files";
const ELSEWHERE: &str = "write the value itself, or let `env` bring it in";

static MISSING: &[Function] = &[
    no("ago", TIME),
    no("date", TIME),
    no("date_in_zone", TIME),
    no("date_modify", TIME),
    no("dateInZone", TIME),
    no("dateModify", TIME),
    no("duration", TIME),
    no("durationRound", TIME),
    no("htmlDate", TIME),
    no("htmlDateInZone", TIME),
    no("must_date_modify", TIME),
    no("mustDateModify", TIME),
    no("mustToDate", TIME),
    no("now", TIME),
    no("toDate", TIME),
    no("unixEpoch", TIME),
    no("randAlpha", RANDOM),
    no("randAlphaNum", RANDOM),
    no("randAscii", RANDOM),
    no("randBytes", RANDOM),
    no("randInt", RANDOM),
    no("randNumeric", RANDOM),
    no("shuffle", RANDOM),
    no("uuidv4", RANDOM),
    no("bcrypt", SECRETS),
    no("buildCustomCert", SECRETS),
    no("decryptAES", SECRETS),
    no("derivePassword", SECRETS),
    no("encryptAES", SECRETS),
    no("genCA", SECRETS),
    no("genCAWithKey", SECRETS),
    no("genPrivateKey", SECRETS),
    no("genSelfSignedCert", SECRETS),
    no("genSelfSignedCertWithKey", SECRETS),
    no("genSignedCert", SECRETS),
    no("genSignedCertWithKey", SECRETS),
    no("htpasswd", SECRETS),
    no("getHostByName", "server URLs may hold host names"),
    no("abbrevboth", ELSEWHERE),
    no("semver", ELSEWHERE),
    no("semverCompare", ELSEWHERE),
    no("urlJoin", ELSEWHERE),
    no("urlParse", ELSEWHERE),
    no("wrap", ELSEWHERE),
    no("wrapWith", ELSEWHERE),
];

/// The function of that name, or a message and a hint.
pub(super) fn find(name: &str) -> Result<&'static Function, (String, String)> {
    let all = || TABLES.iter().flat_map(|table| table.iter());
    match all().find(|function| function.name == name) {
        Some(Function { run: Run::No(why), .. }) => {
            Err((format!("the template function {} is not supported", quoted(name)), (*why).to_owned()))
        }
        Some(function) => Ok(function),
        None => {
            let known =
                all().filter(|function| !matches!(function.run, Run::No(_))).map(|function| function.name);
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean {}?", quoted(near)),
                None => "text belongs between quotes; docs/configuration.md lists the functions".to_owned(),
            };
            Err((format!("there is no template function {}", quoted(name)), hint))
        }
    }
}

/// An argument that was checked to be a text.
fn text(arguments: &[Value], at: usize) -> &str {
    match arguments.get(at) {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

/// An argument that was checked to be an `int`.
fn int(arguments: &[Value], at: usize) -> i64 {
    match arguments.get(at) {
        Some(Value::Int(int)) => *int,
        _ => 0,
    }
}

/// An argument that must not be negative.
fn count(arguments: &[Value], at: usize) -> Outcome<usize> {
    usize::try_from(int(arguments, at)).map_err(|_| "the number must not be negative".to_owned())
}

fn any(arguments: &[Value], at: usize) -> &Value {
    arguments.get(at).unwrap_or(&Value::Nil)
}

fn list(arguments: &[Value], at: usize) -> Outcome<&List> {
    match any(arguments, at) {
        Value::List(list) => Ok(list),
        other => Err(format!("takes a list; this is {}", super::eval::a(other))),
    }
}

/// An argument that was checked to be a map; a nil one has no entries.
fn map(arguments: &[Value], at: usize) -> Option<Map> {
    match any(arguments, at) {
        Value::Map(map) => Some(*map),
        _ => None,
    }
}
