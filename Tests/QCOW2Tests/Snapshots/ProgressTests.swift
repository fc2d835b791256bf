// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import Synchronization
import TestTools
import Testing

/// What an operation says of its progress, and what it leaves when told to stop.
@Suite struct ProgressTests {
    /// Notes what is reported, and asks for the end at one of the reports.
    final class Observer: Sendable {
        private let reports = Mutex<[Progress]>([])
        private let last: Int

        init(stoppingAt last: Int = .max) { self.last = last }

        var all: [Progress] { reports.withLock { $0 } }

        var options: WriteOptions {
            var options = WriteOptions()
            options.progress = { [self] progress in
                reports.withLock { reports in
                    reports.append(progress)
                    return reports.count - 1 < last
                }
            }
            return options
        }
    }

    @Test("Progress only grows, never passes the total, and ends there", arguments: Verb.allCases)
    func progress(_ verb: Verb) throws {
        for specimen in Specimen.all {
            let observer = Observer()
            var image = try Image(storage: InMemoryStorage(specimen.bytes))
            try verb.perform(on: &image, observer.options)
            let reports = observer.all
            #expect(!reports.isEmpty, "\(specimen.testDescription)")
            #expect(reports.allSatisfy { $0.completed <= $0.total }, "\(specimen.testDescription)")
            #expect(
                zip(reports, reports.dropFirst()).allSatisfy { $0.completed <= $1.completed },
                "\(specimen.testDescription)")
            #expect(reports.last.map { $0.completed == $0.total } == true, "\(specimen.testDescription)")
        }
    }

    @Test("Wherever it is cancelled, the image is as it was, or the operation is done", arguments: Verb.allCases)
    func cancelling(_ verb: Verb) throws {
        var outcomes: Set<Bool> = []
        for specimen in Specimen.all {
            let observer = Observer()
            var whole = try Image(storage: InMemoryStorage(specimen.bytes))
            try verb.perform(on: &whole, observer.options)
            let new = try Contents(of: whole)
            let old = try Contents(of: specimen.bytes)
            for index in observer.all.indices {
                var image = try Image(storage: InMemoryStorage(specimen.bytes))
                var failure: QCOW2Error?
                do throws(QCOW2Error) {
                    try verb.perform(on: &image, Observer(stoppingAt: index).options)
                } catch {
                    failure = error
                }
                outcomes.insert(failure != nil)
                let place = Comment("report \(index) of \(specimen.testDescription)")
                #expect(failure.map { $0.code == .cancelled } ?? true, place)
                #expect(try Contents(of: image) == (failure == nil ? new : old), place)
                // The value is still usable.
                if failure != nil { try verb.perform(on: &image) }
                #expect(try Contents(of: image) == new, place)
                let bytes = image.close().bytes
                #expect(ConsistencyCount(bytes).findings.isEmpty, place)
            }
        }
        // Cancelling did something.
        #expect(outcomes.contains(true))
    }

    @Test("A cancelled operation leaves every byte of the clusters in use, and the length", arguments: Verb.allCases)
    func bytes(_ verb: Verb) throws {
        for specimen in Specimen.all {
            let observer = Observer()
            var whole = try Image(storage: InMemoryStorage(specimen.bytes))
            try verb.perform(on: &whole, observer.options)
            for index in observer.all.indices {
                var image = try Image(storage: InMemoryStorage(specimen.bytes))
                do throws(QCOW2Error) {
                    try verb.perform(on: &image, Observer(stoppingAt: index).options)
                    continue
                } catch {
                    #expect(error.code == .cancelled)
                }
                let bytes = image.close().bytes
                #expect(bytes.count == specimen.bytes.count, "\(specimen.testDescription)")
                #expect(bytes.prefix(512) == specimen.bytes.prefix(512), "\(specimen.testDescription)")
                #expect(ConsistencyCount(bytes).findings == ConsistencyCount(specimen.bytes).findings)
            }
        }
    }
}
