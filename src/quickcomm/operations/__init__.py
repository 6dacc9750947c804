"""Operations over several modules, executed in one place of a site: started, listed, resumed, taken back."""
