//! The protobuf encoding: tags, varints, lengths (<https://protobuf.dev/programming-guides/encoding/>).

/// What is wrong with an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends within a field.
    #[error("the protobuf encoding breaks off within a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("the protobuf encoding has a number of more than 64 bits")]
    Overflow,
    /// Field numbers begin at 1 and end at 2^29-1.
    #[error("the protobuf encoding has the field number {0}, which is none")]
    FieldNumber(u64),
    /// Groups, and the two types that are not defined.
    #[error("the protobuf encoding has a field of wire type {0}, which is not supported")]
    WireType(u8),
}

/// The largest field number (2^29 - 1).
const LARGEST_NUMBER: u64 = (1 << 29) - 1;

/// The value of one field, as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 5. No message of Kubernetes has one, but one may be skipped.
    Fixed32,
    /// Wire type 2.
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order in which they were sent. It ends after an error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of a message's encoding.
    pub(crate) fn new(encoding: &'a [u8]) -> Self {
        Self { rest: encoding }
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > LARGEST_NUMBER {
            return Err(WireError::FieldNumber(number));
        }
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            other => return Err(WireError::WireType(other)),
        };
        Ok((number as u32, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(WireError::Overflow);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Overflow)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The numbers of a packed list (`[packed=true]`), which decoders have to take wherever a list of numbers is expected.
pub(crate) fn packed_varints(encoding: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> {
    let mut numbers = Fields::new(encoding);
    std::iter::from_fn(move || {
        if numbers.rest.is_empty() {
            return None;
        }
        let number = numbers.varint();
        if number.is_err() {
            numbers.rest = &[];
        }
        Some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(encoding: &[u8]) -> Result<Vec<(u32, Value<'_>)>, WireError> {
        Fields::new(encoding).collect()
    }

    #[test]
    fn fields_of_every_wire_type() {
        let encoding = [
            8, 0xac, 2, 0x12, 2, b'h', b'i', 0x19, 1, 0, 0, 0, 0, 0, 0, 0, 0x25, 1, 2, 3, 4,
        ];
        let want = vec![
            (1, Value::Varint(300)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed64(1)),
            (4, Value::Fixed32),
        ];
        assert_eq!(all(&encoding), Ok(want));
        assert_eq!(all(&[]), Ok(vec![]));
        assert_eq!(
            all(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0]),
            Ok(vec![(0x1fff_ffff, Value::Varint(0))])
        );
    }

    #[test]
    fn broken_encodings() {
        let long = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        for (encoding, want) in [
            (&[8][..], WireError::Truncated),
            (&[8, 0x80], WireError::Truncated),
            (&[0x12, 3, 1, 2], WireError::Truncated),
            (
                &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                WireError::Truncated,
            ),
            (&[0x19, 1, 2, 3], WireError::Truncated),
            (&[0x25, 1, 2, 3], WireError::Truncated),
            (&long, WireError::Overflow),
            (&[0, 1], WireError::FieldNumber(0)),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 1], WireError::FieldNumber(1 << 29)),
            (&[0x0b, 0x0c], WireError::WireType(3)),
            (&[0x0e], WireError::WireType(6)),
        ] {
            assert_eq!(all(encoding), Err(want), "{encoding:x?}");
        }
    }

    #[test]
    fn packed_numbers() {
        let numbers: Result<Vec<_>, _> = packed_varints(&[1, 0xac, 2, 0]).collect();
        assert_eq!(numbers, Ok(vec![1, 300, 0]));
        assert!(packed_varints(&[1, 0x80]).any(|number| number == Err(WireError::Truncated)));
    }
}
