//! Prints the types that print themselves in Go.

use jiff::{Timestamp, tz::TimeZone};

use crate::error::ProtobufError;
use crate::object::{Place, Printer, find};
use crate::table::{Form, Message};
use crate::wire::{Fields, Value};

/// Go's zero time, the first second of the year 1, in seconds since 1970.
const ZERO_TIME: i64 = -62_135_596_800;
/// The last second of the year 9999.
const LAST_TIME: i64 = 253_402_300_799;

impl Printer {
    /// Prints a message of a form of its own.
    pub(crate) fn form(&mut self, message: &'static Message, encodings: &[&[u8]]) -> Result<(), ProtobufError> {
        let name = &message.name;
        match message.form {
            Form::Time => self.time(name, encodings, Precision::Seconds),
            Form::MicroTime => self.time(name, encodings, Precision::Microseconds),
            Form::Duration => {
                let nanoseconds = Scalars::read(name, encodings)?.numbers[0].unwrap_or_default();
                self.string(&duration(nanoseconds as i64));
                Ok(())
            }
            Form::Quantity => self.quantity(name, encodings),
            Form::IntOrString => self.int_or_string(name, encodings),
            Form::Raw => match Scalars::read(name, encodings)?.strings[0] {
                None | Some([]) => self.null(),
                Some(raw) => self.raw(name, raw),
            },
            Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => self.either(message, encodings),
            Form::Object | Form::Items => unreachable!("the caller prints these"),
        }
    }

    fn null(&mut self) -> Result<(), ProtobufError> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    /// `Time.MarshalJSON`, `MicroTime.MarshalJSON`.
    fn time(&mut self, name: &'static str, encodings: &[&[u8]], precision: Precision) -> Result<(), ProtobufError> {
        let Some((seconds, nanoseconds)) = timestamp(name, encodings)? else {
            return self.null();
        };
        let out_of_range = || ProtobufError::OutOfRange {
            message: name,
            value: format!("the time of {seconds} seconds and {nanoseconds} nanoseconds since 1970"),
        };
        if !(ZERO_TIME..=LAST_TIME).contains(&seconds) || !(0..1_000_000_000).contains(&nanoseconds) {
            return Err(out_of_range());
        }
        let time = Timestamp::from_second(seconds).map_err(|_| out_of_range())?;
        let time = TimeZone::UTC.to_datetime(time);
        let (date, time) = (time.date(), time.time());
        self.out.push(b'"');
        self.literal(format_args!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()));
        self.literal(format_args!(
            "T{:02}:{:02}:{:02}",
            time.hour(),
            time.minute(),
            time.second()
        ));
        if precision == Precision::Microseconds {
            self.literal(format_args!(".{:06}", nanoseconds / 1000));
        }
        self.out.extend_from_slice(b"Z\"");
        Ok(())
    }

    /// `Quantity.MarshalJSON`. The zero value is sent as `0`, but need not be.
    fn quantity(&mut self, name: &'static str, encodings: &[&[u8]]) -> Result<(), ProtobufError> {
        let scalars = Scalars::read(name, encodings)?;
        match scalars.text(name, "string", 0)? {
            "" => self.string("0"),
            text => self.string(text),
        }
        Ok(())
    }

    /// `IntOrString.MarshalJSON`: which of the two it is, the number, the string.
    fn int_or_string(&mut self, name: &'static str, encodings: &[&[u8]]) -> Result<(), ProtobufError> {
        let scalars = Scalars::read(name, encodings)?;
        match scalars.numbers[0].unwrap_or_default() {
            0 => self.literal(scalars.numbers[1].unwrap_or_default() as i32),
            1 => self.string(scalars.text(name, "strVal", 2)?),
            other => {
                return Err(ProtobufError::OutOfRange {
                    message: name,
                    value: format!("the type {other}, which is neither 0 for a number nor 1 for a string,"),
                });
            }
        }
        Ok(())
    }

    /// `MarshalJSON` of the types of schemas that are one thing or the other: the second field, where there is one, or
    /// else the first.
    fn either(&mut self, message: &'static Message, encodings: &[&[u8]]) -> Result<(), ProtobufError> {
        let found = find(message, encodings)?;
        let (first, second) = found.split_at(found.partition_point(|(position, _)| *position == 0));
        let (field, values) = if second.is_empty() {
            (&message.fields[0], first)
        } else {
            (&message.fields[1], second)
        };
        self.value(Place::new(message, field), field, values)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Seconds,
    Microseconds,
}

/// The first three fields of a message whose fields are numbers and strings.
#[derive(Debug, Default)]
struct Scalars<'a> {
    numbers: [Option<u64>; 3],
    strings: [Option<&'a [u8]>; 3],
}

impl<'a> Scalars<'a> {
    fn read(message: &'static str, encodings: &[&'a [u8]]) -> Result<Self, ProtobufError> {
        let mut scalars = Self::default();
        for encoding in encodings {
            for field in Fields::new(encoding) {
                match field.map_err(|source| ProtobufError::Wire { message, source })? {
                    (number @ 1..=3, Value::Varint(value)) => scalars.numbers[number as usize - 1] = Some(value),
                    (number @ 1..=3, Value::Bytes(value)) => scalars.strings[number as usize - 1] = Some(value),
                    _ => {}
                }
            }
        }
        Ok(scalars)
    }

    fn text(&self, message: &'static str, field: &'static str, index: usize) -> Result<&'a str, ProtobufError> {
        let bytes = self.strings[index].unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| ProtobufError::NotUtf8 { message, field })
    }
}

/// Seconds and nanoseconds since 1970; `None` for Go's zero time, which is sent as nothing at all.
fn timestamp(message: &'static str, encodings: &[&[u8]]) -> Result<Option<(i64, i32)>, ProtobufError> {
    if encodings.iter().all(|encoding| encoding.is_empty()) {
        return Ok(None);
    }
    let scalars = Scalars::read(message, encodings)?;
    let seconds = scalars.numbers[0].unwrap_or_default() as i64;
    let nanoseconds = scalars.numbers[1].unwrap_or_default() as i32;
    Ok(Some((seconds, nanoseconds)).filter(|time| *time != (ZERO_TIME, 0)))
}

/// Whether it is Go's zero time.
pub(crate) fn is_zero_time(message: &'static str, encodings: &[&[u8]]) -> Result<bool, ProtobufError> {
    Ok(timestamp(message, encodings)?.is_none())
}

/// As `time.Duration.String` writes it: `1h2m3.5s`, and in smaller units what is below a second.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let (unit, per_unit) = match total {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (hours, minutes, rest) = if unit == "s" {
        let minute = 60 * per_unit;
        (total / (60 * minute), total / minute % 60, total % minute)
    } else {
        (0, 0, total)
    };
    let digits = per_unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", rest % per_unit);
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    let mut text = sign.to_owned();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    text + &format!("{}{fraction}{unit}", rest / per_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        let second = 1_000_000_000;
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (-1_100, "-1.1µs"),
            (2_200_000, "2.2ms"),
            (second, "1s"),
            (3_300_000_000, "3.3s"),
            (60 * second, "1m0s"),
            (4 * 60 * second + 5 * second + 1_000_000, "4m5.001s"),
            (3600 * second, "1h0m0s"),
            (5 * 3600 * second + 7 * second + 1, "5h0m7.000000001s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration(nanoseconds), want);
        }
    }
}
