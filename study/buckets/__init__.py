"""Studies in object storage: `--out s3://bucket/path`, gs://, abfs:// and whatever else fsspec has a file system for.

Object storage has no renames, no appends and no time stamps that can be set, so a study does not live there as a
folder. Every machine trains into a local scratch copy, in the ledger's own format; what is worth keeping is committed:

    URL/
      records/study/NNNNNN-SSSSSS.json.gz   study.json, points.jsonl and what confirming came to, as one object
      records/ID/NNNNNN-SSSSSS.json.gz      all records of a trial as one object, and which model files belong to them
      models/ID/NNNNNN/results/…            nnU-Net's results folder of the trial: checkpoints, plans, validation
      logs/ID.txt                           what the trial's processes printed
      locks/study/…, locks/ID/…             who runs the study, who trains the trial
      stop/…                                a study that is being stopped

A commit is one object that is put whole, so what the storage holds fits together at every moment; no order of putting
several files one after the other would do that, because costs, epochs and checkpoint of a trial name each other.
Model files are put before the commit that names them and deleted after the next one. NNNNNN is the number of the lock
under which the commit was made, SSSSSS counts its commits: the highest is the one that counts. So a process that lost
its lock without noticing cannot undo what the next holder committed: whatever it still puts has a lower number.
"""
