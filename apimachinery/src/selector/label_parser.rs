//! The grammar of label selectors, with the error texts of `labels.Parse`.
//!
//! ```text
//! selector    = [ requirement *( "," requirement ) ]
//! requirement = [ "!" ] KEY / KEY ( "=" / "==" / "!=" / ">" / "<" ) VALUE / KEY ( "in" / "notin" ) "(" values ")"
//! values      = VALUE *( "," VALUE )
//! ```
//! A VALUE may be empty. White space separates tokens and is otherwise ignored. `in` and `notin` are operators only in
//! their place: `in in (in)` is fine.

use std::collections::BTreeSet;

use super::label_syntax::label_key_errors;
use super::labels::{LabelSelectorError, Operator, Requirement};
use super::quoted;

/// The operators between a key and values, as the error text lists them.
const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    NotEquals,
    Open,
    /// Keys, values, and the words `in` and `notin`.
    Word(&'a str),
}

impl Token<'_> {
    /// What error texts show.
    fn literal(&self) -> String {
        match self {
            Self::End => String::new(),
            Self::Close => ")".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Not => "!".to_owned(),
            Self::DoubleEquals => "==".to_owned(),
            Self::Equals => "=".to_owned(),
            Self::Greater => ">".to_owned(),
            Self::Less => "<".to_owned(),
            Self::NotEquals => "!=".to_owned(),
            Self::Open => "(".to_owned(),
            Self::Word(word) => (*word).to_owned(),
        }
    }
}

/// The requirements of a selector, in the order they are written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, LabelSelectorError> {
    let mut parser = Parser { rest: text };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Not => {}
            other => return Err(found(&other, ", expected: !, identifier, or 'end of string'")),
        }
        let requirement = parser
            .requirement()
            .map_err(|error| LabelSelectorError::new(format!("unable to parse requirement: {error}")))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => match parser.peek() {
                Token::Word(_) | Token::Not => {}
                other => return Err(found(&other, ", expected: identifier after ','")),
            },
            other => return Err(found(&other, ", expected: ',' or 'end of string'")),
        }
    }
}

fn found(token: &Token<'_>, expected: &str) -> LabelSelectorError {
    LabelSelectorError::new(format!("found '{}'{expected}", token.literal()))
}

struct Parser<'a> {
    rest: &'a str,
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        Self { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        let text = self.rest.trim_start_matches(is_space);
        let operators = [
            ("==", Token::DoubleEquals),
            ("!=", Token::NotEquals),
            ("=", Token::Equals),
            ("!", Token::Not),
            (")", Token::Close),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
            ("(", Token::Open),
        ];
        if let Some((literal, token)) = operators.into_iter().find(|(literal, _)| text.starts_with(literal)) {
            self.rest = &text[literal.len()..];
            return token;
        }
        let end = text
            .find(|character| is_special(character) || is_space(character) || character == '\0')
            .unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        match word {
            // A NUL ends the text, as in Go.
            "" => Token::End,
            word => Token::Word(word),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let mut token = self.next();
        let negated = token == Token::Not;
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(found(&token, ", expected: identifier"));
        };
        let errors = label_key_errors(key);
        if !errors.is_empty() {
            // Go prints the path of the field, which requests do not have.
            let key = quoted(key);
            let errors = errors.join("; ");
            return Err(LabelSelectorError::new(format!(
                "<nil>: Invalid value: {key}: {errors}"
            )));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, LabelSelectorError> {
        Ok(match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            other => return Err(found(&other, &format!(", expected: {BINARY_OPERATORS}"))),
        })
    }

    fn exact_value(&mut self) -> Result<String, LabelSelectorError> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.to_owned()),
            other => Err(found(&other, ", expected: identifier")),
        }
    }

    /// The values in parentheses, sorted and distinct. Nothing between two commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(found(&other, " expected: '('")),
        }
        match self.peek() {
            Token::Word(_) | Token::Comma | Token::Close => {}
            other => return Err(found(&other, ", expected: ',', ')' or identifier")),
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    word
                }
                Token::Comma | Token::Close => "",
                other => return Err(found(&other, ", expected: ',', or identifier")),
            };
            values.insert(value.to_owned());
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values.into_iter().collect()),
                other => return Err(found(&other, ", expected: ',' or ')'")),
            }
        }
    }
}
