"""What is done to video. May import models; knows no catalog and no engine."""
