// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// What `snapshot` is asked to do.
    private enum Action {
        case list
        case create([UInt8])
        case apply([UInt8])
        case delete([UInt8])
    }

    /// `qemu-img snapshot`.
    static func snapshot(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        let isNew = context.version >= .hasCommandHelp
        var options = GetoptLong(
            words, short: isNew ? "hf:la:c:d:qU" : "la:c:d:hqU", long: isNew ? newLongOptions : longOptions,
            ordering: context.ordering)
        var action: Action?
        var format: [UInt8]?
        var (hasOptions, sharesByForce) = (false, false)
        parsing: while true {
            let event = options.next()
            switch event {
            case .option("h", _):
                Console.writeOutput(help(context.version, for: "snapshot"))
                return 0
            case .option("l", _), .option("a", _), .option("c", _), .option("d", _):
                guard action == nil else {
                    throw .usage("Cannot mix '-l', '-a', '-c', '-d'", of: "snapshot", context.version)
                }
                action = Self.action(event)
            case .option("f", let argument): format = argument
            case .option("U", _): sharesByForce = true
            case .option("image-opts", _): hasOptions = true
            case .option("object", let argument): try checkObject(argument ?? [])
            case .option: continue
            case .complaint(let complaint):
                throw Refusal(complaint, lastWord: options.lastWord, command: "snapshot", context.version)
            case .end: break parsing
            }
        }
        guard options.operands.count == 1, let file = options.operands.first else {
            throw .usage("Expecting one image file name", of: "snapshot", context.version)
        }
        if hasOptions, format != nil {
            throw Refusal("--image-opts and --format are mutually exclusive")
        }
        let source = try Source(file, format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
        switch action ?? (isNew ? .list : nil) {
        case nil: _ = try source.open(forWriting: true)
        case .list: try list(source, context.version)
        case .create(let name): try create(name, in: source, context.version)
        case .apply(let word): try apply(word, in: source)
        case .delete(let name): try delete(name, in: source)
        }
        return 0
    }

    private static let longOptions = [
        GetoptLong.LongOption("help", as: "h"), GetoptLong.LongOption("object", takesArgument: true),
        GetoptLong.LongOption("image-opts"), GetoptLong.LongOption("force-share", as: "U"),
    ]

    /// Those of 10.1 and later.
    private static let newLongOptions = [
        GetoptLong.LongOption("help", as: "h"), GetoptLong.LongOption("format", takesArgument: true, as: "f"),
        GetoptLong.LongOption("image-opts"), GetoptLong.LongOption("list", as: "l"),
        GetoptLong.LongOption("apply", takesArgument: true, as: "a"),
        GetoptLong.LongOption("create", takesArgument: true, as: "c"),
        GetoptLong.LongOption("delete", takesArgument: true, as: "d"),
        GetoptLong.LongOption("force-share", as: "U"), GetoptLong.LongOption("quiet", as: "q"),
        GetoptLong.LongOption("object", takesArgument: true),
    ]

    private static func action(_ event: GetoptLong.Event) -> Action? {
        switch event {
        case .option("l", _): .list
        case .option("c", let name): .create(name ?? [])
        case .option("a", let word): .apply(word ?? [])
        case .option("d", let name): .delete(name ?? [])
        default: nil
        }
    }

    private static func list(_ source: Source, _ version: QemuVersion) throws(Refusal) {
        switch try source.open(forWriting: false) {
        case .raw: break
        case .qcow2(let image):
            // An image with an external data file has no snapshots for QEMU, whatever its table says.
            guard !image.incompatibleFeatures.contains(.externalDataFile) else { return }
            Console.writeOutput(snapshotTable(image.snapshots, version))
        }
    }

    private static func create(_ name: [UInt8], in source: Source, _ version: QemuVersion) throws(Refusal) {
        func refusal(_ number: Int32, _ reason: String) -> Refusal {
            version >= .saysCompressed
                ? Refusal("Could not create snapshot '\(name)': \(reason)")
                : Refusal("Could not create snapshot '\(name)': \(-number) (\(reason))")
        }
        switch try source.open(forWriting: true) {
        case .raw: throw refusal(95, "Operation not supported")
        case .qcow2(var image):
            guard !image.incompatibleFeatures.contains(.externalDataFile) else {
                throw refusal(95, "Operation not supported")
            }
            guard image.snapshots.count < 65536 else { throw refusal(27, "File too large") }
            var date = SnapshotDate.now
            date.nanoseconds -= date.nanoseconds % 1000  // The clock that qemu-img reads has microseconds.
            do throws(QCOW2Error) {
                try image.createSnapshot(
                    NewSnapshot(nameBytes: name, date: date, icount: 0, namePolicy: .anyBytes), options: source.options)
            } catch {
                if error.code == .limitExceeded { throw refusal(22, "Invalid argument") }
                if let cause = error.cause as? SystemError { throw refusal(cause.number, cause.description) }
                throw Refusal("Could not create snapshot '\(name)': \(error.description)")
            }
        }
    }

    private static func apply(_ word: [UInt8], in source: Source) throws(Refusal) {
        func refusal(_ reason: ByteText) -> Refusal { Refusal("Could not apply snapshot '\(word)': \(reason)") }
        switch try source.open(forWriting: true) {
        case .raw:
            // qemu-img opens such a file twice.
            if source.format == nil { source.warnAboutRaw() }
            throw refusal("Block driver does not support snapshots")
        case .qcow2(var image):
            guard !image.incompatibleFeatures.contains(.externalDataFile) else {
                throw refusal("Failed to load snapshot: Operation not supported")
            }
            if try source.bitmaps(of: image).count > 0 { throw refusal("Device has active dirty bitmaps") }
            let snapshots = image.snapshots
            let found =
                snapshots.firstIndex { $0.idBytes.prefix { $0 != 0 }.elementsEqual(word) }
                ?? snapshots.firstIndex { $0.nameBytes.prefix { $0 != 0 }.elementsEqual(word) }
            guard let index = found else { throw refusal("Failed to load snapshot: No such file or directory") }
            let snapshot = snapshots[index]
            if snapshot.diskSize != image.virtualSize / 512 * 512 {
                func refuse(_ line: ByteText, _ reason: String) -> Refusal {
                    Refusal(
                        line,
                        then: ["qemu-img: Could not apply snapshot '\(word)': Failed to load snapshot: \(reason)\n"])
                }
                if snapshot.diskSize % 512 != 0 {
                    throw refuse("The new size must be a multiple of 512", "Invalid argument")
                }
                if image.version == 2 {
                    throw refuse("Can't resize a v2 image which has snapshots", "Operation not supported")
                }
            }
            do throws(QCOW2Error) {
                try image.applySnapshot(at: index, options: source.options)
            } catch {
                switch error.code {
                case .limitExceeded: throw refusal("Failed to load snapshot: Invalid argument")
                case .activeBitmaps: throw refusal("Device has active dirty bitmaps")
                default: throw refusal("Failed to load snapshot: \(error.systemReason)")
                }
            }
        }
    }

    private static func delete(_ name: [UInt8], in source: Source) throws(Refusal) {
        func refusal(_ reason: ByteText) -> Refusal { Refusal("Could not delete snapshot '\(name)': \(reason)") }
        switch try source.open(forWriting: true) {
        case .raw: throw refusal("snapshot not found")
        case .qcow2(var image):
            guard !image.incompatibleFeatures.contains(.externalDataFile),
                let index = image.snapshots.firstIndex(where: { $0.shownName == name })
            else { throw refusal("snapshot not found") }
            // Found by what is shown of a name, and then looked for by all of it.
            let snapshot = image.snapshots[index]
            guard snapshot.shownName == snapshot.nameBytes.prefix(while: { $0 != 0 }),
                snapshot.shownID == snapshot.idBytes.prefix(while: { $0 != 0 })
            else { throw refusal("Can't find the snapshot") }
            do throws(QCOW2Error) {
                try image.deleteSnapshots(at: [index], options: source.options)
            } catch {
                if error.cause is SystemError {
                    throw refusal("Failed to remove snapshot from snapshot list: \(error.systemReason)")
                }
                throw refusal("\(error.description)")
            }
        }
    }
}

extension Source {
    /// The image's bitmaps.
    func bitmaps(of image: borrowing Image<FileStorage>) throws(Refusal) -> [Bitmap] {
        do throws(QCOW2Error) {
            return try image.bitmaps()
        } catch {
            throw refusal("\(error.description)")
        }
    }

    /// How to write: without progress, until a signal comes.
    var options: WriteOptions {
        var options = WriteOptions()
        options.discardsFreedClusters = discardsFreedClusters ?? true
        options.progress = { _ in Interruption.signal == 0 }
        Interruption.catchSignals()
        return options
    }
}
