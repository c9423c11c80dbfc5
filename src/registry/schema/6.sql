-- Where a key was seen in the name of a reference, the name stood in the stream.
UPDATE sightings SET stream = 'git:name' WHERE source = 'ref';
UPDATE remembered SET stream = 'git:name' WHERE source = 'ref';
