// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import Testing

@Suite struct EscapedTextTests {
    /// All that Unicode has.
    private static let scalars = (0...UInt32(0x10FFFF)).compactMap { Unicode.Scalar($0) }

    @Test("What can't be seen as itself is escaped, and nothing else")
    func hidden() {
        let hidden = Set(Self.scalars.filter(EscapedText.isHidden))
        let examples: [ClosedRange<UInt32>] = [
            0...0x1F, 0x7F...0x9F,  // C0, DEL and C1
            0xAD...0xAD, 0x61C...0x61C, 0x200E...0x200F, 0x202A...0x202E, 0x2066...0x2069,  // soft hyphen; directions
            0x200B...0x200D, 0x2060...0x2064, 0xFEFF...0xFEFF, 0x115F...0x1160, 0x3164...0x3164,  // no width or shape
            0x2028...0x2029, 0xFE00...0xFE0F, 0xE0100...0xE01EF,  // separators, variation selectors
            0xE0000...0xE007F, 0xFFF9...0xFFFB, 0xFFFE...0xFFFF,  // tags, annotations, noncharacters
        ]
        for range in examples { for value in range { #expect(Unicode.Scalar(value).map(hidden.contains) == true) } }
        for text in ["caf\u{E9} \u{301}", "\u{65E5}\u{672C}", "\u{1F600}", "\u{5D0}\u{5E9}", " ~\\'\u{A0}\u{FFFD}"] {
            for scalar in text.unicodeScalars { #expect(!hidden.contains(scalar)) }
        }
    }

    @Test("Every character's text holds no hidden one, and stays as it is when escaped again")
    func stable() {
        for scalar in Self.scalars {
            let text = EscapedText.oneLine("a\(scalar)".utf8)
            if EscapedText.isHidden(scalar) {
                guard text == "a\\u{\(String(scalar.value, radix: 16))}" else {
                    Issue.record("\(scalar.value)")
                    continue
                }
            } else if !text.utf8.elementsEqual("a\(scalar)".utf8) {
                Issue.record("\(scalar.value)")
            }
        }
        for text in ["\u{202E}abc", "\u{301}x", "\u{1F3FB}", "a\u{301}", "", "\u{E0041}"] {
            let once = EscapedText.oneLine(text.utf8)
            #expect(EscapedText.oneLine(once.utf8) == once)
        }
    }

    @Test("A mark at the start doesn't join what precedes the text")
    func marks() {
        #expect(EscapedText.oneLine("\u{301}x".utf8) == "\\u{301}x")
        #expect(EscapedText.oneLine("\u{903}x".utf8) == "\\u{903}x")
        #expect(EscapedText.oneLine("e\u{301}".utf8).utf8.elementsEqual("e\u{301}".utf8))
    }

    @Test("Cut text fits, ends in an ellipsis, and has no part of an escape", arguments: [1, 2, 8, 60])
    func bounded(_ columns: Int) {
        let texts = ["x", "\u{E9}", "\u{1F600}", "\u{202E}", "\u{E0041}", "a\u{202E}"].flatMap { part in
            (0...70).map { String(repeating: part, count: $0) }
        }
        for text in texts {
            let whole = EscapedText.oneLine(text.utf8)
            let cut = EscapedText.oneLine(text.utf8, columns: columns)
            #expect(cut.unicodeScalars.count <= columns)
            if whole.unicodeScalars.count <= columns {
                #expect(cut == whole)
            } else {
                #expect(cut.last == "\u{2026}" && whole.hasPrefix(cut.dropLast()))
                let escapes = cut.unicodeScalars.filter { $0 == "\\" }.count
                #expect(escapes == cut.unicodeScalars.filter { $0 == "}" }.count)
            }
        }
    }

    @Test("Bytes that aren't UTF-8 are replaced, also where text is cut")
    func invalid() {
        #expect(EscapedText.oneLine([0x61, 0xFF, 0xC3, 0x28]) == "a\u{FFFD}\u{FFFD}(")
        #expect(EscapedText.oneLine([UInt8](repeating: 0xFF, count: 9), columns: 3) == "\u{FFFD}\u{FFFD}\u{2026}")
        #expect(EscapedText.oneLine([], columns: 1) == "")
    }
}
