//! Runs a [`Template`], as Go's `text/template` does.

use std::rc::Rc;

use super::super::MAX_BYTES;
use super::ast::{Body, Choice, Command, Expression, Kind, Node, Number, Pipe, Range, Template};
use super::format;
use super::functions::{Function, Run, Type};
use super::lex::Fault;
use super::origin::{Output, Place};
use super::value::{BYTES_PER_STEP, Of, Outcome, Room, Value};
use crate::problem::quoted;

/// Lists of parts and templates within each other; chosen, they take stack.
const MAX_DEPTH: usize = 200;

type Ran<T = ()> = Result<T, Box<Fault>>;

/// The rendered text.
pub(super) fn run(template: &Template<'_>, data: Value, room: &Room<'_>) -> Ran<Output> {
    let mut machine = Machine { template, room, out: Output::default(), depth: 0 };
    machine.body(&template.main, data)?;
    Ok(machine.out)
}

struct Machine<'m> {
    template: &'m Template<'m>,
    room: &'m Room<'m>,
    out: Output,
    depth: usize,
}

/// What the parts of one body see.
struct Frame {
    /// The first is `$`.
    variables: Vec<Value>,
}

enum Flow {
    On,
    Break,
    Continue,
}

fn fault(at: Place) -> impl Fn(String) -> Box<Fault> {
    move |message| Box::new(Fault::new(at, message))
}

impl Machine<'_> {
    fn body(&mut self, body: &Body<'_>, data: Value) -> Ran {
        let mut frame = Frame { variables: vec![Value::Nil; body.slots] };
        if let Some(root) = frame.variables.first_mut() {
            *root = data.clone();
        }
        self.nodes(&body.nodes, &data, &mut frame).map(|_| ())
    }

    fn nodes(&mut self, nodes: &[Node<'_>], dot: &Value, frame: &mut Frame) -> Ran<Flow> {
        self.depth += 1;
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot, frame)?;
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.depth -= 1;
        Ok(flow)
    }

    fn node(&mut self, node: &Node<'_>, dot: &Value, frame: &mut Frame) -> Ran<Flow> {
        match node {
            Node::Text { at, text } => {
                self.take_step(*at)?;
                self.out.copy(text, *at);
                self.check_size(*at)?;
            }
            Node::Action { at, pipe } => {
                let value = self.pipe(pipe, dot, frame)?;
                if pipe.sets.is_empty() {
                    self.out.replace(*at);
                    match value {
                        Value::Nil => self.out.text.push_str("<no value>"),
                        value => format::print(self.room, &mut self.out.text, &value).map_err(fault(*at))?,
                    }
                    self.check_size(*at)?;
                }
            }
            Node::Choice(choice) => return self.choice(choice, dot, frame),
            Node::Range(range) => self.range(range, dot, frame)?,
            Node::Call { at, name, pipe } => {
                let data = match pipe {
                    Some(pipe) => self.pipe(pipe, dot, frame)?,
                    None => Value::Nil,
                };
                self.call_template(*at, name, data)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn take_step(&self, at: Place) -> Ran {
        if self.depth > MAX_DEPTH {
            return Err(Box::new(Fault::new(at, format!("actions nested deeper than {MAX_DEPTH} levels"))));
        }
        self.room.step(1).map_err(fault(at))
    }

    fn check_size(&self, at: Place) -> Ran {
        if self.out.text.len() as u64 <= MAX_BYTES {
            return Ok(());
        }
        let message = format!("the template writes more than {} MiB", MAX_BYTES / 1024 / 1024);
        Err(Box::new(Fault::new(at, message)))
    }

    fn call_template(&mut self, at: Place, name: &Rc<str>, data: Value) -> Ran {
        self.take_step(at)?;
        let template = self.template;
        match template.defined.get(name) {
            Some(body) => {
                self.room.make(body.slots * size_of::<Value>()).map_err(fault(at))?;
                self.body(body, data)
            }
            None => {
                let hint =
                    crate::suggest::hint(name, "templates", template.defined.keys().map(|name| &**name));
                let message = format!("no template is called {}", quoted(name));
                Err(Box::new(Fault::new(at, message).hint(hint)))
            }
        }
    }

    fn choice(&mut self, choice: &Choice<'_>, dot: &Value, frame: &mut Frame) -> Ran<Flow> {
        for branch in &choice.branches {
            let value = self.pipe(&branch.pipe, dot, frame)?;
            if self.room.is_true(&value) {
                let dot = if branch.with { &value } else { dot };
                return self.nodes(&branch.nodes, dot, frame);
            }
        }
        self.nodes(&choice.otherwise, dot, frame)
    }

    fn range(&mut self, range: &Range<'_>, dot: &Value, frame: &mut Frame) -> Ran {
        let Range { pipe, nodes, otherwise } = range;
        let over = self.pipe(pipe, dot, frame)?;
        let at = pipe.at;
        let mut turns = 0_usize;
        let mut turn = |machine: &mut Self, index: Value, element: Value| -> Ran<bool> {
            turns += 1;
            machine.take_step(at)?;
            match pipe.sets[..] {
                [] => {}
                [only] => frame.variables[only] = element.clone(),
                [first, second, ..] => {
                    frame.variables[first] = index;
                    frame.variables[second] = element.clone();
                }
            }
            let flow = machine.nodes(nodes, &element, frame)?;
            Ok(!matches!(flow, Flow::Break))
        };
        match &over {
            Value::Nil => {}
            Value::List(list) => {
                for (index, element) in (0..).zip(&*list.items) {
                    if !turn(self, Value::Int(index), element.clone())? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, value) in self.room.entries(*map).map_err(fault(at))? {
                    if !turn(self, Value::Text(key), value)? {
                        break;
                    }
                }
            }
            Value::Int(count) | Value::Int64(count) => {
                if pipe.sets.len() > 1 {
                    let message = "`range` over a number sets one variable only".to_owned();
                    return Err(Box::new(Fault::new(at, message).hint("write `until N` instead of N")));
                }
                let element = |n| if matches!(over, Value::Int(_)) { Value::Int(n) } else { Value::Int64(n) };
                for n in 0..*count {
                    if !turn(self, Value::Nil, element(n))? {
                        break;
                    }
                }
            }
            other => {
                let message = format!("`range` takes a list, a map or a number; this is {}", a(other));
                return Err(Box::new(Fault::new(at, message)));
            }
        }
        if turns == 0 {
            // `break` and `continue` in it were refused when it was read.
            self.nodes(otherwise, dot, frame)?;
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value, frame: &mut Frame) -> Ran<Value> {
        self.take_step(pipe.at)?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, value.as_ref(), dot, frame)?);
        }
        let value = value.unwrap_or(Value::Nil);
        // Those of a `range` are set by each turn.
        if let [slot] = pipe.sets[..] {
            frame.variables[slot] = value.clone();
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        piped: Option<&Value>,
        dot: &Value,
        frame: &mut Frame,
    ) -> Ran<Value> {
        let Command { operator, arguments } = command;
        if let Kind::Function(function) = &operator.kind {
            return self.call(function, operator.at, arguments, piped, dot, frame);
        }
        if let Some(extra) = arguments.first() {
            let message = "only functions take arguments".to_owned();
            return Err(Box::new(Fault::new(extra.at, message)));
        }
        if piped.is_some() {
            return Err(Box::new(Fault::new(operator.at, "only a function takes what comes through `|`")));
        }
        if matches!(operator.kind, Kind::Nil) {
            return Err(Box::new(Fault::new(operator.at, "`nil` is no value by itself")));
        }
        self.expression(operator, dot, frame)
    }

    fn expression(&mut self, expression: &Expression, dot: &Value, frame: &mut Frame) -> Ran<Value> {
        let at = expression.at;
        Ok(match &expression.kind {
            Kind::Dot => dot.clone(),
            Kind::Nil => Value::Nil,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(Number { is_float: true, float, .. }) => Value::Float(*float),
            Kind::Number(Number { int, .. }) => int.map_or(Value::Nil, Value::Int),
            Kind::Text(text) => Value::Text(Rc::clone(text)),
            Kind::Variable(slot) => frame.variables.get(*slot).cloned().unwrap_or(Value::Nil),
            Kind::Function(function) => self.call(function, at, &[], None, dot, frame)?,
            Kind::Pipe(pipe) => self.pipe(pipe, dot, frame)?,
            Kind::Fields(of, names) => {
                let mut value = Some(self.expression(of, dot, frame)?).filter(|of| !matches!(of, Value::Nil));
                for name in names {
                    self.take_step(at)?;
                    // What is missing has no fields, either.
                    let Some(of) = value else { break };
                    value = self.field(&of, name, at)?;
                }
                value.unwrap_or(Value::Nil)
            }
        })
    }

    fn field(&self, of: &Value, name: &str, at: Place) -> Ran<Option<Value>> {
        match of {
            Value::Map(map) if map.of != Of::Fields => Ok(self.room.get(*map, name)),
            Value::Map(map) if self.room.get(*map, name).is_some() => Ok(self.room.get(*map, name)),
            other => {
                let message = format!("there is no field {} in {}", quoted(name), a(other));
                let hint = match other {
                    Value::Bool(_) => "a file has no data: `.` is false outside of `range` and `with`",
                    _ => "only maps have fields",
                };
                Err(Box::new(Fault::new(at, message).hint(hint)))
            }
        }
    }

    fn call(
        &mut self,
        function: &'static Function,
        at: Place,
        arguments: &[Expression],
        piped: Option<&Value>,
        dot: &Value,
        frame: &mut Frame,
    ) -> Ran<Value> {
        self.take_step(at)?;
        let count = arguments.len() + usize::from(piped.is_some());
        let Function { name, takes, rest, run } = function;
        if count < takes.len() || (count > takes.len() && rest.is_none()) {
            let wanted = match (takes.len(), rest) {
                (least, Some(_)) => format!("at least {least} argument{}", if least == 1 { "" } else { "s" }),
                (1, None) => "one argument".to_owned(),
                (0, None) => "no argument".to_owned(),
                (n, None) => format!("{n} arguments"),
            };
            let message = format!("`{name}` takes {wanted}, not {count}");
            return Err(Box::new(Fault::new(at, message)));
        }
        let wanted = |index: usize| takes.get(index).copied().or(*rest).unwrap_or(Type::Any);
        if let Run::And | Run::Or = run {
            let stops_at = matches!(run, Run::Or);
            let mut value = Value::Nil;
            for argument in arguments {
                value = self.argument(name, argument, Type::Any, dot, frame)?;
                if self.room.is_true(&value) == stops_at {
                    return Ok(value);
                }
            }
            return Ok(piped.cloned().unwrap_or(value));
        }
        let mut values = Vec::with_capacity(count);
        for (index, argument) in arguments.iter().enumerate() {
            values.push(self.argument(name, argument, wanted(index), dot, frame)?);
        }
        if let Some(piped) = piped {
            check(name, piped, wanted(arguments.len())).map_err(fault(at))?;
            values.push(piped.clone());
        }
        let size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::List(list) => size_of_val(&*list.items),
            _ => 0,
        };
        self.room.step(values.iter().map(size).sum::<usize>() / BYTES_PER_STEP).map_err(fault(at))?;
        match run {
            Run::Plain(run) => run(self.room, &values)
                .map_err(|reason| Box::new(Fault::new(at, format!("`{name}`: {reason}")))),
            Run::And | Run::Or | Run::No(_) => Ok(Value::Nil),
        }
    }

    /// A constant becomes what the function asks for, as far as Go does that.
    fn argument(
        &mut self,
        name: &str,
        argument: &Expression,
        wanted: Type,
        dot: &Value,
        frame: &mut Frame,
    ) -> Ran<Value> {
        let at = argument.at;
        let value = match (&argument.kind, wanted) {
            (Kind::Number(Number { int: Some(int), .. }), Type::Int) => Value::Int(*int),
            (Kind::Number(Number { float, .. }), Type::Float) => Value::Float(*float),
            _ => self.expression(argument, dot, frame)?,
        };
        check(name, &value, wanted).map_err(|reason| {
            let fault = Fault::new(at, reason);
            Box::new(match (wanted, &value) {
                (Type::Int, Value::Int64(_) | Value::Float(_) | Value::Text(_)) => {
                    fault.hint("`int` converts it")
                }
                (Type::Text, Value::Int(_) | Value::Int64(_) | Value::Float(_)) => {
                    fault.hint("`toString` converts it")
                }
                _ => fault,
            })
        })?;
        Ok(value)
    }
}

fn check(name: &str, value: &Value, wanted: Type) -> Outcome<()> {
    let fits = match (wanted, value) {
        (Type::Any, _)
        | (Type::Int, Value::Int(_))
        | (Type::Float, Value::Float(_))
        | (Type::Bool, Value::Bool(_))
        | (Type::Text, Value::Text(_))
        | (Type::Map, Value::Nil) => true,
        (Type::Map, Value::Map(map)) => map.of == Of::Any,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let wanted = match wanted {
        Type::Int => "an int",
        Type::Float => "a float64",
        Type::Bool => "a bool",
        Type::Text => "a string",
        Type::Map | Type::Any => "a map[string]interface {}",
    };
    Err(format!("`{name}` takes {wanted} here; this is {}", a(value)))
}

/// A value by its type.
pub(super) fn a(value: &Value) -> String {
    let name = value.type_name();
    match name {
        "nil" => "nothing (nil)".to_owned(),
        _ => format!("{} {name}", if name.starts_with(['i', 'u']) { "an" } else { "a" }),
    }
}
