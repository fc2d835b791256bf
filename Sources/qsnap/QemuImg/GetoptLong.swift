// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Options and operands of a command line, taken apart exactly as GNU `getopt_long` does it.
///
/// ArgumentParser can't stand in for it: scripts rely on options behind operands, on clusters such as `-lq`, on
/// attached arguments such as `-cNAME`, on unambiguous beginnings of long names, on an option's argument being the next
/// word whatever it looks like, and on the wording of every complaint. Works on bytes, because names and paths may be
/// any.
struct GetoptLong {
    /// An option with a name of more than one letter.
    struct LongOption {
        let name: String
        let takesArgument: Bool
        /// What ``Event/option(_:argument:)`` says: equal for different names of one option.
        let identity: String

        init(_ name: String, takesArgument: Bool = false, as identity: String? = nil) {
            self.name = name
            self.takesArgument = takesArgument
            self.identity = identity ?? name
        }
    }

    /// Where options may stand.
    enum Ordering {
        /// Anywhere: what is no option is moved behind the options.
        case permute
        /// Only in front of the first word that is no option.
        case requireOrder
    }

    enum Event: Equatable {
        /// A short option's identity is its letter.
        case option(String, argument: [UInt8]?)
        case complaint(Complaint)
        case end
    }

    /// What is wrong with an option.
    enum Complaint: Equatable {
        case unknownShort(UInt8)
        case unknownLong([UInt8])
        case ambiguous([UInt8], candidates: [String])
        case unwantedArgument(String)
        case missingShortArgument(UInt8)
        case missingLongArgument(String)

        var isMissingArgument: Bool {
            switch self {
            case .missingShortArgument, .missingLongArgument: true
            default: false
            }
        }
    }

    /// The words, in an order that changes while parsing; the first is the command's own name.
    private(set) var words: [[UInt8]]
    /// The next word to look at; once parsing is over, the first operand.
    private(set) var index = 1
    private var firstNonOption = 1
    private var lastNonOption = 1
    /// The rest of a cluster of short options.
    private var cluster: ArraySlice<UInt8> = []
    private let short: [UInt8: Bool]
    private let long: [LongOption]
    private let ordering: Ordering

    /// - Parameters:
    ///   - words: The command's name, and its arguments.
    ///   - short: Letters, each followed by a colon if it takes an argument.
    ///   - long: The long options in their documented order, which decides between equal ones.
    ///   - ordering: Where options may stand.
    init(_ words: [[UInt8]], short: String, long: [LongOption], ordering: Ordering) {
        self.words = words
        var letters: [UInt8: Bool] = [:]
        var last: UInt8?
        for letter in short.utf8 {
            if letter == UInt8(ascii: ":"), let last { letters[last] = true } else { letters[letter] = false }
            last = letter
        }
        self.short = letters
        self.long = long
        self.ordering = ordering
    }

    /// The word before the next one: what C programs name in their complaints.
    var lastWord: [UInt8] { words[index - 1] }
    /// What is left once parsing is over.
    var operands: ArraySlice<[UInt8]> { words[index...] }

    /// The next option, complaint, or the end of the options.
    mutating func next() -> Event {
        if cluster.isEmpty {
            guard let word = nextOptionWord() else { return .end }
            if word.starts(with: Array("--".utf8)) {
                index += 1
                return longOption(word.dropFirst(2))
            }
            cluster = word.dropFirst()
        }
        return shortOption()
    }

    /// Finds the next word that is an option, and moves the operands before it out of the way.
    private mutating func nextOptionWord() -> [UInt8]? {
        lastNonOption = min(lastNonOption, index)
        firstNonOption = min(firstNonOption, index)
        if ordering == .permute {
            if firstNonOption != lastNonOption, lastNonOption != index {
                exchange()
            } else if lastNonOption != index {
                firstNonOption = index
            }
            while index < words.count, !Self.isOption(words[index]) { index += 1 }
            lastNonOption = index
        }
        if index < words.count, words[index] == Array("--".utf8) {
            index += 1
            if firstNonOption != lastNonOption, lastNonOption != index {
                exchange()
            } else if firstNonOption == lastNonOption {
                firstNonOption = index
            }
            lastNonOption = words.count
            index = words.count
        }
        if index == words.count {
            if firstNonOption != lastNonOption { index = firstNonOption }
            return nil
        }
        return Self.isOption(words[index]) ? words[index] : nil
    }

    private static func isOption(_ word: [UInt8]) -> Bool { word.count > 1 && word[0] == UInt8(ascii: "-") }

    /// Moves the options behind the known operands in front of them.
    private mutating func exchange() {
        let options = words[lastNonOption..<index]
        let operands = words[firstNonOption..<lastNonOption]
        words.replaceSubrange(firstNonOption..<index, with: options + operands)
        firstNonOption += options.count
        lastNonOption = index
    }

    private mutating func shortOption() -> Event {
        guard let letter = cluster.popFirst() else { return .end }
        if cluster.isEmpty { index += 1 }
        guard let takesArgument = short[letter] else { return .complaint(.unknownShort(letter)) }
        let identity = String(UnicodeScalar(letter))
        guard takesArgument else { return .option(identity, argument: nil) }
        if !cluster.isEmpty {
            index += 1
            defer { cluster = [] }
            return .option(identity, argument: Array(cluster))
        }
        guard index < words.count else { return .complaint(.missingShortArgument(letter)) }
        index += 1
        return .option(identity, argument: words[index - 1])
    }

    private mutating func longOption(_ text: ArraySlice<UInt8>) -> Event {
        let name = text.prefix { $0 != UInt8(ascii: "=") }
        var candidates = long.filter { $0.name.utf8.elementsEqual(name) }
        if candidates.isEmpty {
            candidates = long.filter { $0.name.utf8.starts(with: name) }
            let isSame = candidates.allSatisfy {
                $0.identity == candidates[0].identity && $0.takesArgument == candidates[0].takesArgument
            }
            if !isSame { return .complaint(.ambiguous(Array(text), candidates: candidates.map(\.name))) }
        }
        guard let option = candidates.first else { return .complaint(.unknownLong(Array(text))) }
        let attached = name.endIndex < text.endIndex ? Array(text[(name.endIndex + 1)...]) : nil
        guard option.takesArgument else {
            if attached != nil { return .complaint(.unwantedArgument(option.name)) }
            return .option(option.identity, argument: nil)
        }
        if let attached { return .option(option.identity, argument: attached) }
        guard index < words.count else { return .complaint(.missingLongArgument(option.name)) }
        index += 1
        return .option(option.identity, argument: words[index - 1])
    }
}
