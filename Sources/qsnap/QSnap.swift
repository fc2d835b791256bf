// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

struct QSnap: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qsnap",
        abstract: "Snapshots inside qcow2 disk images, without QEMU.",
        discussion: """
            SNAPSHOT is a snapshot's ID or name; id:TEXT and name:TEXT say which of the two is meant.

            Exit status: 0 done; 1 failed; 2 corruption found; 3 only leaks found; 4 no such or ambiguous snapshot; \
            5 image in use; 6 unsupported image or feature; 7 not a qcow2 image; 64 usage.
            """,
        version: Main.version,
        subcommands: [
            List.self, Create.self, Apply.self, Delete.self, Rename.self, Usage.self, Diff.self, Check.self,
            Inspect.self, Export.self, Map.self, Hash.self,
        ]
    )
}

@main
enum Main {
    static let version = "0.1.0"

    static func main() {
        // A closed pipe and a file size limit are errors of the write, reported as such, and not the process's end.
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        if let arguments = QemuImg.arguments(of: rawArguments) { exit(QemuImg.run(arguments)) }
        var image: String?
        do {
            try checkArguments()
            var command = try QSnap.parseAsRoot(words)
            image = (command as? any ImageCommand)?.options.image
            image = (command as? any ImageReadingCommand)?.options.image ?? image
            image = (command as? any ReadCommand)?.reading.image ?? image
            try command.run()
        } catch let failure as Failure {
            failure.exit()
        } catch let error as QCOW2Error {
            Failure(error, in: image).exit()
        } catch {
            QSnap.exit(withError: error)
        }
    }

    /// The arguments for the parser, which looks for an equals sign among characters.
    ///
    /// Where the value's first character would merge with the sign, it becomes a word of its own; it can't be taken for
    /// an option.
    private static var words: [String] {
        var words: [String] = []
        var isOperand = false
        for argument in CommandLine.arguments.dropFirst() {
            isOperand = isOperand || argument == "--"
            let name = argument.unicodeScalars.prefix { $0 != "=" }
            guard !isOperand, argument.utf8.starts(with: "--".utf8), name.endIndex < argument.endIndex,
                argument.firstIndex(of: "=") != name.endIndex
            else {
                words.append(argument)
                continue
            }
            words += [String(name), String(argument.unicodeScalars[name.endIndex...].dropFirst())]
        }
        return words
    }

    /// The arguments as bytes, with the program's name in front.
    private static var rawArguments: [[UInt8]] {
        CommandLine.arguments.indices.map { index in
            // SAFETY: the indices are those of argv, whose strings live as long as the process.
            guard let argument = unsafe CommandLine.unsafeArgv[index] else { return [] }
            return unsafe Array(UnsafeBufferPointer(start: argument, count: strlen(argument))).map {
                UInt8(bitPattern: $0)
            }
        }
    }

    /// Refuses arguments that aren't UTF-8: as a `String` they would silently become another name or path.
    private static func checkArguments() throws(Failure) {
        for index in CommandLine.arguments.indices.dropFirst() {
            // SAFETY: the indices are those of argv, whose strings live as long as the process.
            guard let argument = unsafe CommandLine.unsafeArgv[index] else { continue }
            guard unsafe String(validatingCString: argument) == nil else { continue }
            throw Failure("The argument '\(CommandLine.arguments[index])' isn't valid UTF-8.", status: 64)
        }
    }
}
