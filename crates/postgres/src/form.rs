//! The form of a client's messages: whether the lengths and counts inside fit the message.
//!
//! Source: PostgreSQL documentation, "Message Formats" of the frontend/backend protocol.

use bytes::Buf;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is too short, too long, or a text in it does not end.
    Layout,
    /// A text is not UTF-8.
    Utf8,
}

/// Whether clients send messages of this type.
pub(crate) fn is_known(kind: u8) -> bool {
    b"QPBCDEHSXpdfc".contains(&kind)
}

/// Checks the body of a message.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(kind: u8, body: &[u8]) -> Result<(), Fault> {
    let mut rest = Rest(body);
    match kind {
        b'Q' | b'f' | b'p' => rest.text()?,
        b'P' => {
            rest.text()?;
            rest.text()?;
            rest.many(4)?;
        }
        b'B' => {
            rest.text()?;
            rest.text()?;
            rest.many(2)?;
            for _ in 0..rest.count()? {
                rest.value()?;
            }
            rest.many(2)?;
        }
        b'C' | b'D' => {
            rest.skip(1)?;
            rest.text()?;
        }
        b'E' => {
            rest.text()?;
            rest.skip(4)?;
        }
        // Data of a copy, which is not offered: any bytes.
        b'd' => rest.0 = &[],
        _ => {}
    }
    if rest.0.is_empty() { Ok(()) } else { Err(Fault::Layout) }
}

/// What has not been looked at yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), Fault> {
        self.0 = self.0.get(bytes..).ok_or(Fault::Layout)?;
        Ok(())
    }

    /// A text and the zero that ends it.
    fn text(&mut self) -> Result<(), Fault> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Fault::Layout)?;
        std::str::from_utf8(&self.0[..end]).map_err(|_| Fault::Utf8)?;
        self.skip(end + 1)
    }

    fn count(&mut self) -> Result<usize, Fault> {
        let mut two = self.0.get(..2).ok_or(Fault::Layout)?;
        self.skip(2)?;
        Ok(two.get_u16().into())
    }

    /// A count, and as many items of a size.
    fn many(&mut self, size: usize) -> Result<(), Fault> {
        let count = self.count()?;
        self.skip(count * size)
    }

    /// A length and as many bytes; -1 is NULL.
    fn value(&mut self) -> Result<(), Fault> {
        let mut four = self.0.get(..4).ok_or(Fault::Layout)?;
        let length = four.get_i32();
        self.skip(4)?;
        match usize::try_from(length) {
            Ok(length) => self.skip(length),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(Fault::Layout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lengths_must_fit_the_message() {
        for (kind, body, expected) in [
            (b'Q', &b"SELECT 1\0"[..], Ok(())),
            (b'Q', b"SELECT 1", Err(Fault::Layout)),
            (b'Q', b"SELECT 1\0;DROP\0", Err(Fault::Layout)),
            (b'Q', b"\xff\0", Err(Fault::Utf8)),
            (b'P', b"\0SELECT 1\0\0\0", Ok(())),
            (b'P', b"\0SELECT 1\0\xff\xff", Err(Fault::Layout)),
            (b'P', b"x", Err(Fault::Layout)),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x02ab\0\0", Ok(())),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xff\0\0", Ok(())),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", Err(Fault::Layout)),
            (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xffab\0\0", Err(Fault::Layout)),
            (b'B', b"\0\0\0\0\xff\xff", Err(Fault::Layout)),
            (b'D', b"", Err(Fault::Layout)),
            (b'D', b"S\0", Ok(())),
            (b'E', b"\0\0\0\0\0", Ok(())),
            (b'E', b"\0\0\0", Err(Fault::Layout)),
            (b'S', b"", Ok(())),
            (b'S', b"x", Err(Fault::Layout)),
            (b'd', b"\xff\0", Ok(())),
        ] {
            assert_eq!(check(kind, body), expected, "{} {body:?}", char::from(kind));
        }
    }
}
