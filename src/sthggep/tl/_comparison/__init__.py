"""Behind `tl.compare`: predictions of several methods in one form, their scores, and paired intervals."""
