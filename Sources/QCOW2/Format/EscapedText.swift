// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Makes text from an image fit to be shown: on one line, as it reads, and not too long.
///
/// Whoever made an image chose its names. Printed as they are, they could move a terminal's cursor, turn the direction
/// of what follows, or hide what tells two names apart. So every character that isn't seen as itself is shown as
/// `\u{...}` with its number.
public enum EscapedText {
    /// The columns that one text from an image takes in a table or a message.
    public static let columnLimit = 60

    /// Whether a character is shown as its number: controls, line and paragraph separators, marks that turn the
    /// direction, and characters without a shape or a width of their own.
    public static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        if (0x20...0x7E).contains(scalar.value) { return false }
        let properties = scalar.properties
        switch properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: return true
        default: return properties.isDefaultIgnorableCodePoint || properties.isNoncharacterCodePoint
        }
    }

    /// The text with hidden characters, and a mark at its start that would go with what precedes it, escaped.
    ///
    /// Bytes that aren't UTF-8 become U+FFFD.
    ///
    /// - Parameters:
    ///   - bytes: The text, in UTF-8 or not.
    ///   - columns: The most characters to return; a longer text is cut, and ends in `…`.
    /// - Returns: The text, which escaping again leaves as it is.
    public static func oneLine(_ bytes: some Collection<UInt8>, columns: Int = .max) -> String {
        // A character takes at most four bytes, and is never shown shorter.
        let start = bytes.prefix(columns > .max / 8 ? .max : 4 * columns + 4)
        if start.count <= columns, start.allSatisfy({ (0x20...0x7E).contains($0) }) {
            return String(decoding: Array(start), as: UTF8.self)
        }
        var result = String.UnicodeScalarView()
        // The part that may stay when there is more than fits: all but one column.
        var (count, kept) = (0, result.endIndex)
        for scalar in String(decoding: Array(start), as: UTF8.self).unicodeScalars {
            let mustEscape = isHidden(scalar) || result.isEmpty && joins(scalar)
            let shown = mustEscape ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
            count += shown.unicodeScalars.count
            guard count <= columns else { return String(result[..<kept]) + "…" }
            result.append(contentsOf: shown.unicodeScalars)
            if count < columns { kept = result.endIndex }
        }
        return String(result)
    }

    /// Whether a character is shown with the one before it.
    private static func joins(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark: true
        default: scalar.properties.isGraphemeExtend || scalar.properties.isEmojiModifier
        }
    }
}

/// Text from an image, fit for a part of a message.
func escaped(_ bytes: some Collection<UInt8>) -> String {
    EscapedText.oneLine(bytes, columns: EscapedText.columnLimit)
}
